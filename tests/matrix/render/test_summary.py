"""The summary of one cell: every check that does not pass is named, with one command."""

from __future__ import annotations

import subprocess
import sys

from matrix.judge.verdicts import Baseline, BaselineRow, judge
from matrix.records.lines import Record
from matrix.render.summary import summary
from tests.matrix.factories import record, run

BASELINE = Baseline((BaselineRow("export/known", ("fail",), "torch refuses it", "torch"),))


def test_counts_names_and_commands() -> None:
    one = run(
        record("archive/load"),
        record("archive/na", "na"),
        record("export/known", "fail", message="refused"),
        record("export/new", "crash", message="\n".join("abcdef")),
        record("archive/load", "fail", "native"),
    )
    text = summary(one, judge(one, BASELINE))
    assert "archive  ✓ 1 ok · 1 n/a" in text
    assert "export   ! 1 fail · 1 crash · 1 of these known" in text
    assert "  export/new: crash" in text
    assert "... 2 more lines" in text
    assert "$ python -m kvconform check --subject kvconform -k 'export/new'" in text
    assert "  export/known: known, fail\n    refused\n    why: torch refuses it (torch)" in text
    assert text.index("native (findings") < text.index("\nkvconform\n")
    assert text.endswith("1 regressed, 1 known, 1 about others")


def test_an_interrupted_a_filtered_and_an_unresolved_run_say_so() -> None:
    partly = run(record(), complete=False)
    assert "the run did not reach its end" in summary(partly, judge(partly, BASELINE))
    assert "◐" in summary(partly, judge(partly, BASELINE))
    impossible = run(unresolved="torch is too old\nsee above")
    assert summary(impossible, []) == (
        "torch2.5-tf4.53-py3.11-cpu: no environment could be made\n  torch is too old\n  see above"
    )


def test_a_session_does_not_wait_for_pandas() -> None:
    modules = "matrix.render.summary, matrix.judge.verdicts, matrix.records.files"
    code = f"import sys, {modules}; sys.exit('pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ours_is_told_check_by_check_and_others_by_cause() -> None:
    records = [
        record(f"export/{name}", "fail", subject, f"length is 3, expected 9 [{name}]")
        for subject in ("kvconform", "native")
        for name in "abcde"
    ]
    text = summary(run(*records), judge(run(*records), BASELINE))
    assert text.count("$ python -m kvconform check --subject kvconform") == 5
    assert text.count("$ python -m kvconform check --subject native") == 1
    assert "  5 checks: export/a, export/b, export/c and 2 more: fail\n    length is 3, expected 9 [a]" in text


def test_hundreds_that_never_ran_are_one_line() -> None:
    records = [record("export/failed", "fail", message="x"), *(_never(f"export/{number}") for number in range(300))]
    one = run(*records, complete=False)
    text = summary(one, judge(one, BASELINE))
    assert "300 checks: export/0, export/1, export/2 and 297 more: missing" in text
    assert len(text.splitlines()) < 15


def _never(name: str) -> Record:
    return Record("kvconform", name, "export", "missing", message="planned, never started")
