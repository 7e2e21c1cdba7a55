from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kvconform_conformance.runner.recorder import MESSAGE_LIMIT, STATUSES, Outcome, Recorder, clean

ONE = Outcome("kvconform", "export/one", "pass", 1.23456)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_line_is_on_the_disk_when_it_is_written(tmp_path):
    path = tmp_path / "new" / "record.jsonl"
    recorder = Recorder.open(path, "cpu")
    recorder.plan([("kvconform", "export/one")])
    assert lines(path) == [{"kind": "planned", "checks": [["kvconform", "export/one"]]}]
    recorder.start("kvconform", "export/one")
    assert lines(path)[-1] == {"kind": "started", "subject": "kvconform", "id": "export/one"}
    recorder.finish(ONE)
    assert lines(path)[-1]["status"] == "pass"
    recorder.end("complete")
    assert (lines(path)[-1]["outcome"], lines(path)[-1]["counts"]) == ("complete", {"pass": 1})


def test_the_first_plan_and_the_first_answer_stand(tmp_path):
    path = tmp_path / "record.jsonl"
    recorder = Recorder.open(path, "cpu")
    recorder.plan([("kvconform", "export/one")])
    recorder.plan([("kvconform", "export/two")])
    recorder.finish(ONE)
    recorder.finish(Outcome("kvconform", "export/one", "crash"))
    recorder.end("complete")
    recorder.end("interrupted")
    recorder.finish(Outcome("kvconform", "export/two", "pass"))
    assert [line["kind"] for line in lines(path)] == ["planned", "check", "end"]
    assert lines(path)[1]["status"] == "pass"


def test_counts_are_in_the_order_of_the_statuses():
    recorder = Recorder(None)
    for number, status in enumerate(reversed(STATUSES)):
        recorder.finish(Outcome("kvconform", f"a/{number}", status))
    assert list(recorder.counts()) == list(STATUSES)


@pytest.mark.parametrize(
    ("subject", "device", "command"),
    [
        ("kvconform", "cpu", "--subject kvconform -k 'export/one'"),
        ("kvconform with patches", "cpu", "--subject 'kvconform with patches' -k 'export/one'"),
        ("native", "cuda", "--subject native --device cuda -k 'export/one'"),
    ],
)
def test_the_command_that_repeats_a_check_can_be_pasted(subject, device, command):
    line = Outcome(subject, "export/one", "fail").to_json(device)
    assert line["reproduce"] == f"python -m kvconform check {command}"
    assert (line["category"], line["seconds"]) == ("export", 0.0)


@pytest.mark.parametrize(
    ("message", "cleaned"),
    [
        (f"  File {sys.prefix}/lib/x.py\n", "File lib/x.py"),
        (f"{Path.home()}/work/y.py", "work/y.py"),
        ("a\x1b[31mred\x00", "a?[31mred?"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("half a pair \ud83d", "half a pair ?"),
    ],
)
def test_a_message_carries_nothing_of_the_machine_and_no_control_characters(message, cleaned):
    assert clean(message) == cleaned


def test_a_long_message_says_how_much_is_cut():
    assert clean("x" * MESSAGE_LIMIT) == "x" * MESSAGE_LIMIT
    assert clean("x" * (MESSAGE_LIMIT + 7)) == "x" * MESSAGE_LIMIT + "... (7 more characters)"
