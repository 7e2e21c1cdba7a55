"""Keeps what cells put on the disk within a budget: a torch minor takes about 5 GB, and there are twelve."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from matrix.collect import uv
from matrix.errors import UserError
from matrix.paths import Paths

GB = 10**9

MINOR_COST = 5 * GB
"""What the environments and wheels of one torch minor take (measured: 2.3 to 5.1)."""

_BULKY = re.compile(r"(torch|triton|pytorch-triton|nvidia-.+|cuda-.+)==", re.MULTILINE)
_TORCH_OF = re.compile(r"torch([^-]+)-tf")


@dataclass(frozen=True)
class Keeper:
    """Bounds what cells keep on the disk: their environments and uv's cache, which share files through hard links."""

    paths: Paths
    budget: int

    def used(self) -> int:
        """Bytes held by the cells' environments and uv's cache together, a file with several links counted once."""
        sizes: dict[tuple[int, int], int] = {}
        for folder in (*self._venvs(), uv_cache(self.paths)):
            sizes.update(_files(folder))
        return sum(sizes.values())

    def is_tight(self) -> bool:
        """Whether another torch minor would not fit the budget, or the disk."""
        self.paths.home.mkdir(parents=True, exist_ok=True)
        return self.used() + MINOR_COST > self.budget or shutil.disk_usage(self.paths.home).free < MINOR_COST

    def make_room(self, wanted: Collection[str]) -> str:
        """Remove the torch minors that are not wanted, if another one would not fit.

        uv cleans its cache by package, so the wheels of every torch minor go at once. The environments of the wanted
        minors stay whole, since they hold hard links to the files; a minor that comes later is downloaded again.

        Args:
            wanted: torch axis values whose environments are in use.

        Returns:
            What was done, or "" when there was room.
        """
        if not self.is_tight():
            return ""
        before = self.used()
        packages = self._bulky_packages()
        for folder in self._venvs():
            if _torch_of(folder) not in wanted:
                shutil.rmtree(folder, ignore_errors=True)
        if packages:
            uv.run(["cache", "clean", "--quiet", *packages], cwd=self.paths.root)
        freed = before - self.used()
        return f"freed {freed / GB:.1f} GB to stay within {self.budget / GB:.0f} GB" if freed > GB // 10 else ""

    def room_for(self, torch: str, running: Collection[str] = ()) -> str:
        """Before the first cell of a torch minor, drop the minors that nobody waits for, if the disk asks for it.

        Args:
            torch: the torch that begins.
            running: those of which cells run.

        Returns:
            What was done, or "" when there was room.
        """
        if any(self.paths.venvs.glob(f"torch{torch}-*")):
            return ""
        return self.make_room({torch, *running})

    def _venvs(self) -> list[Path]:
        return [folder for folder in sorted(self.paths.venvs.glob("torch*")) if folder.is_dir()]

    def _bulky_packages(self) -> list[str]:
        texts = (path.read_text(encoding="utf-8") for path in self.paths.resolved.glob("*.txt"))
        return sorted({name for text in texts for name in _BULKY.findall(text)})


def uv_cache(paths: Paths) -> Path:
    """The folder of uv's cache."""
    return Path(uv.run(["cache", "dir", "--quiet", "--color", "never"], cwd=paths.root).strip())


def is_full(folder: Path) -> bool:
    """Whether nothing more can be written: less than a megabyte is free."""
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize < 10**6


def parse_budget(text: str) -> int:
    """Gigabytes as a person writes them ("25", "2.5") in bytes.

    Raises:
        UserError: it is no positive number.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0
    if value <= 0:
        raise UserError(
            f"--disk-budget {text!r} is no number of gigabytes above 0", "python -m matrix run --disk-budget 25"
        )
    return int(value * GB)


def _torch_of(folder: Path) -> str:
    match = _TORCH_OF.match(folder.name)
    return match[1] if match else ""


def _files(folder: Path) -> Iterator[tuple[tuple[int, int], int]]:
    """Each file below a folder: its identity on the disk, and the bytes it takes."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
            continue
        try:
            stat = entry.stat(follow_symlinks=False)
        except OSError:  # another process removed it
            continue
        yield (stat.st_dev, stat.st_ino), getattr(stat, "st_blocks", 0) * 512
