"""Errors that people posted, and what the command says of them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvconform import explain, known, pins
from kvconform.known import Known

POSTED = tomllib.loads((Path(__file__).parent.parent / "posted_errors.toml").read_text(encoding="utf-8"))["posted"]
MOST_WRONG = 1


@pytest.fixture(scope="module")
def packaged() -> Known:
    return known.load()


def named(message: str, packaged: Known) -> str:
    answer = explain.explain(message, packaged)
    return answer.failure.page if answer.failure else ""


def test_posted_errors_are_named_or_honestly_unknown(packaged: Known) -> None:
    assert len({row["thread"] for row in POSTED}) >= 25
    assert sum(bool(row["page"]) for row in POSTED) >= 15
    wrong = [row["thread"] for row in POSTED if named(row["message"], packaged) != row["page"]]
    assert len(wrong) <= MOST_WRONG, wrong


@pytest.mark.parametrize("row", [row for row in POSTED if "perhaps" in row], ids=lambda row: row["thread"])
def test_what_a_message_alone_does_not_prove_is_named_with_its_condition(row: dict[str, str], packaged: Known) -> None:
    answer = explain.explain(row["message"], packaged)
    assert [(failure.page, bool(when)) for failure, when in answer.perhaps] == [(row["perhaps"], True)]


@pytest.mark.parametrize("row", [row for row in POSTED if row["page"]], ids=lambda row: row["thread"])
def test_addresses_numbers_paths_and_line_breaks_do_not_matter(row: dict[str, str], packaged: Known) -> None:
    text = row["message"].replace("0x7fb877134b80", "0x1").replace("s72", "s5").replace("/home/", "C:\\x\\")
    logged = "\n".join(f"E   {line}" for line in text.splitlines())
    assert named("a log\n" * 50 + logged, packaged) == row["page"]


def test_each_page_says_it_itself(packaged: Known) -> None:
    """The message that a page shows leads to the page, surely or perhaps; one page shows that nothing is said."""
    folder = Path(__file__).parent.parent.parent / "docs" / "known-failures"
    silent = {"module-among-inputs", "sliding-window-in-pieces"}
    # Their messages are told with the file that raised them, which the page leaves out.
    bare = {"experts-by-data", "branch-on-position", "mistral-of-4-44", "whisper-positions", "skipped-layers"}
    bare |= {"llama4-needs-a-mask", "mamba-pieces", "branch-on-mask", "rope-of-a-length"}
    for failure in packaged.failures:
        text = (folder / f"{failure.page}.md").read_text(encoding="utf-8")
        says = text.partition("\nSays: ")[2]
        answer = explain.explain(says, packaged)
        found = {answer.failure.page} if answer.failure else {one.page for one, _ in answer.perhaps}
        assert (failure.page in found) is (failure.page not in silent | bare), failure.page


def test_another_failure_with_more_of_the_text_wins(packaged: Known) -> None:
    both = (
        "warnings about unsafe unpickling is [...] AttrProxy.__init__() missing 1 required positional argument: 'path'"
    )
    assert named(both, packaged) == "slice-of-modules"


@given(st.text())
def test_no_text_breaks_it_and_once_is_enough(text: str) -> None:
    once = explain.normalise(text)
    assert explain.normalise(once) in (once, explain.normalise(explain.normalise(once)))


def test_the_command_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert explain.main([POSTED[0]["message"]]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Known: A cache is no pytree node")
    assert "register_flattening_functions" in out
    assert explain.main(["hello"]) == 1
    assert capsys.readouterr().out.startswith("Unknown")
    assert explain.main(["--json", "Attempting to use FunctionalTensor on its own"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["known"] is None
    assert [one["page"] for one in answer["perhaps"]] == ["vmap-masks"]
    stdin = io.TextIOWrapper(io.BytesIO(b"\xff\xfe " + POSTED[0]["message"].encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert explain.main([]) == 0


def test_no_message_is_a_usage_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b" \n")))
    assert explain.main([]) == 2
    assert "no message" in capsys.readouterr().err


def test_explain_and_pins_import_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from kvconform.__main__ import main; main(['explain', 'x']); main(['pins']); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pins_are_a_constraints_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert pins.main(["--goal", "newest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split("==")[0] for line in lines if not line.startswith("#")} >= {"torch", "transformers"}
    assert pins.main([]) == 0
    assert "gemma3" in capsys.readouterr().out
    assert pins.main(["--goal", "nonsense"]) == 2
    assert "the goals are" in capsys.readouterr().err
    assert pins.main(["--goal", "newest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pins"]["torch"]


def test_a_goal_that_nothing_is_good_for_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    goal = known.Goal("moon", "fly to the moon", "a rule", None)
    monkeypatch.setattr(pins, "load", lambda: Known(("", ""), (), (), (goal,)))
    assert pins.main(["--goal", "moon"]) == 1
    assert "nothing measured yet" in capsys.readouterr().err
    assert pins.main([]) == 0


def test_what_was_measured_of_a_pair(packaged: Known) -> None:
    pair = packaged.pairs[-1]
    lines = known.about(packaged, f"{pair.torch}.1+cu128", f"{pair.transformers}.0")
    assert lines[0] == f"measured before, torch {pair.torch} with transformers {pair.transformers}:"
    assert any(line.strip().startswith("kvconform") for line in lines)
    assert known.about(packaged, "99.0.1", "98.0.0")[0] == "nobody has measured torch 99.0 with transformers 98.0"
    assert all("pins" in line for line in known.about(packaged, None, "4.57.0"))
