"""The table of architectures: counts, words and reasons of answers that are at hand."""

from __future__ import annotations

import csv
import io

import pytest

from matrix.judge import architectures as judged
from matrix.judge.baseline import Baseline
from matrix.judge.table import judge_table, table_of
from matrix.paths import ROOT
from matrix.records.lines import CellRun, Record, Selection, Status
from matrix.render import architectures, wording
from matrix.render.grid import Results
from tests.matrix.factories import record, run

PATCHED = "kvconform with patches"
NAME = wording.subject_name(PATCHED)
NO_CACHE = "Rwkv returns no cache: its output has no past_key_values"
WRONG = "decode step 2, batch 4: logits differ by 0.3, the cache by 0 (accepted: 0.0001)"


def test_the_words_are_those_of_the_suite() -> None:
    """A word that changes there would count no wrong answer here, and no model without a cache."""
    from kvconform.export.compare import Difference

    message = f"torch.export raised x; {Difference('decode step 2', 0.3, 0.0, 1e-4)}"
    assert judged.is_wrong(record("architectures/exported-decode[A]", "fail", message=message))
    suite = (ROOT / "conformance" / "kvconform_conformance" / "examples" / "architectures.py").read_text("utf-8")
    watch = (ROOT / "src" / "kvconform" / "export" / "watch.py").read_text("utf-8")
    assert "logits differ by {" in suite
    told = ((suite, "returns no cache"), (suite, "does not generate: "), (watch, "calls this model without a cache"))
    for text, words in told:
        assert words in text
        assert judged.has_no_cache(record("architectures/exported-decode[A]", "na", message=words))


def of(model: str, *statuses: Status, message: str = "", subject: str = PATCHED) -> list[Record]:
    questions = ("round-trip", "exported-decode", "exported-prefill")
    return [
        record(f"architectures/{question}[{model}]", status, subject, "" if status == "pass" else message)
        for question, status in zip(questions, statuses, strict=True)
    ]


def asked(*records: Record, torch: str = "2.15", transformers: str = "5.23") -> CellRun:
    selection = Selection(categories=("architectures",))
    subjects = tuple({each.subject for each in records})
    return run(*records, torch=torch, transformers=transformers, selection=selection, subjects=subjects)


@pytest.fixture
def results() -> Results:
    newest = asked(
        *of("LlamaForCausalLM", "pass", "pass", "pass"),
        *of("MambaForCausalLM", "pass", "fail", "timeout", message="it | refuses"),
        *of("WrongForCausalLM", "pass", "fail", "pass", message=WRONG),
        *of("RwkvForCausalLM", "na", "na", "na", message=NO_CACHE),
        *of("OddForCausalLM", "na", "na", "na", message="TinyConfigError: a ratio\nis missing"),
        *of("LlamaForCausalLM", "pass", "fail", "pass", subject="kvconform", message="vmap"),
    )
    older = asked(*of("LlamaForCausalLM", "pass", "pass", "fail"), transformers="4.57")
    extra = judge_table(table_of([newest, older]), Baseline(()))
    return Results((), (), (), extra=extra)


@pytest.fixture
def files(results: Results) -> dict[str, str]:
    return architectures.files(results)


def test_one_sentence_says_what_patches_are_worth_where_both_were_asked(results: Results) -> None:
    text = architectures.sentence(results, "reports")
    assert "by transformers (torch): 5.23 (2.15) 0 % → 33 %." in text
    assert "4.57" not in text
    assert architectures.sentence(Results((), (), ()), "reports") == ""


def test_the_sentence_has_each_transformers_once_with_its_newest_torch() -> None:
    both = [
        *of("LlamaForCausalLM", "pass", "fail", "pass", message="vmap", subject="kvconform"),
        *of("LlamaForCausalLM", "pass", "pass", "pass"),
    ]
    cells = [asked(*both, torch=torch, transformers="4.57") for torch in ("2.9", "2.15", "2.10")]
    results = Results((), (), (), extra=judge_table(table_of(cells), Baseline(())))
    assert "(torch): 4.57 (2.15) 0 % → 100 %. [" in architectures.sentence(results, "reports")


def test_shares_are_of_those_that_have_a_cache(files: dict[str, str]) -> None:
    text = files["architectures.md"]
    assert f"| 5.23 | 2.15 | {NAME} | 5 | 4 (80 %) | 3 | 3 (100 %) | 1 (33.3 %) | 2 (66.6 %) | 1 |" in text
    assert f"| 4.57 | 2.15 | {NAME} | 1 | 1 (100 %) | 1 | 1 (100 %) | 1 (100 %) | 0 (0 %) | 0 |" in text


def test_a_wrong_answer_is_named_and_no_failure_among_others(files: dict[str, str]) -> None:
    text = files["architectures.md"]
    assert f"- transformers 5.23, torch 2.15, {NAME}: exported-decode of WrongForCausalLM" in text
    assert "| WrongForCausalLM | ✓**wrong**✓ |  |" in text


def test_one_line_a_model_and_a_column_a_release(files: dict[str, str]) -> None:
    text = files["architectures.md"]
    for line in (
        "| architecture | 5.23 (2.15) | 4.57 (2.15) |",
        "| LlamaForCausalLM | ✓✓✓ | ✓✓✗ |",
        "| MambaForCausalLM | ✓✗⏱ |  |",
        "| OddForCausalLM | not made |  |",
        "| RwkvForCausalLM | no cache |  |",
        "| LlamaForCausalLM | ✓✗✓ |",
    ):
        assert f"{line}\n" in text, line


def test_the_data_have_every_answer_and_a_reason(files: dict[str, str]) -> None:
    rows = list(csv.DictReader(io.StringIO(files["architectures.csv"])))
    assert len(rows) == 7
    told = {(row["architecture"], row["transformers"], row["subject"]): row for row in rows}
    assert told["OddForCausalLM", "5.23", PATCHED]["reason"] == "TinyConfigError: a ratio is missing"
    assert told["MambaForCausalLM", "5.23", PATCHED]["exported-prefill"] == "timeout"
    assert told["LlamaForCausalLM", "5.23", "kvconform"]["reason"] == "vmap"


def test_where_nobody_was_asked_there_is_no_file() -> None:
    assert architectures.files(Results((), (), ())) == {}
