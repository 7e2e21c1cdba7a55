from __future__ import annotations

import os
import zlib
from pathlib import Path

from matrix.collect.machines import courier
from matrix.records import files
from matrix.records.lines import dump
from tests.matrix import factories
from tests.matrix.factories import record
from tests.matrix.helpers import CELL

FINAL = f"{CELL.id}.jsonl"
WHOLE = factories.run(record(), started="2026-11-21T10:00:00Z")
LATER = factories.run(record(status="fail"), started="2026-11-21T11:00:00Z")
TORN = factories.run(record(), complete=False)


def packed(text: str) -> bytes:
    return zlib.compress(text.encode())


def test_only_what_a_cell_wrote_is_given_back(tmp_path: Path) -> None:
    factories.write(tmp_path, WHOLE)
    (tmp_path / f"{CELL.id}.jsonl.published").write_text("not this", encoding="utf-8")
    before = courier.stamps(tmp_path, CELL.id)
    assert set(courier.collect(tmp_path, [CELL.id])) == {FINAL}
    assert courier.collect(tmp_path, [CELL.id], before) == {}
    (tmp_path / f"{FINAL}.interrupted").write_text("new", encoding="utf-8")
    os.utime(tmp_path / FINAL, ns=(1, 1))
    assert set(courier.collect(tmp_path, [CELL.id], before)) == {FINAL, f"{FINAL}.interrupted"}


def test_a_machine_keeps_what_began_later(tmp_path: Path) -> None:
    factories.write(tmp_path, LATER)
    courier.receive(tmp_path, {FINAL: packed(dump(WHOLE)), f"{FINAL}.left": packed(dump(TORN))})
    assert files.read(tmp_path / FINAL) == LATER
    assert files.read(tmp_path / f"{FINAL}.left") == TORN
    factories.write(tmp_path, WHOLE)
    courier.receive(tmp_path, {FINAL: packed(dump(LATER))})
    assert files.read(tmp_path / FINAL) == LATER


def test_a_record_is_put_where_a_session_here_would_have(tmp_path: Path) -> None:
    final = tmp_path / "records" / FINAL
    assert courier.deliver(final, {}) is None
    assert courier.deliver(final, {FINAL: packed(dump(WHOLE))}) == final
    torn = courier.deliver(final, {FINAL: packed(dump(TORN))})
    assert torn == final.with_suffix(".jsonl.interrupted")
    assert files.read(final) == WHOLE
    unresolved = factories.run(unresolved="because")
    assert courier.deliver(final, {FINAL: packed(dump(unresolved))}) == final
    assert files.read(final).unresolved == "because"
    assert not list(final.parent.glob("*.part"))
