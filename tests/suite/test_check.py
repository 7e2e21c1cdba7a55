"""`python -m kvconform check` on planted checks: whatever one does, the others get results, the record is whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("xdist", reason="the suite runs in workers of pytest-xdist")
pytest.importorskip("transformers", reason="the suite is about transformers")

PLANTED = Path(__file__).parent / "planted"
EXPECTED = {
    "segfault": ("crash", "Segmentation fault"),
    "hang": ("timeout", "still running at the limit of 0:00:06"),
    "hang-holding-the-gil": ("timeout", "still running"),
    "exit": ("crash", "without a word"),
    "exit-zero": ("crash", "without a word"),
    "kill": ("crash", "without a word"),
    "system-exit": ("error", "SystemExit: 0"),
    "pytest-exit": ("error", "may not end the run"),
    "fixture": ("error", "fixture is broken"),
    "teardown": ("error", "teardown is broken"),
    "memory": ("error", "MemoryError"),
    "unicode": ("fail", "größer als 東京 ? ?"),
    "huge": ("fail", "more characters"),
    "hostile": ("error", "its text cannot be had"),
    "assert": ("fail", "arithmetic"),
    "skips-itself": ("error", "a check may not skip itself"),
    "importorskip": ("error", "a check may not skip itself"),
    "xfails-itself": ("error", "xfail is forbidden"),
    "marked-xfail": ("error", "xfail is forbidden"),
    "marked-xpass": ("error", "xfail is forbidden"),
    "marked-skip": ("error", "a check may not skip itself"),
    "not-applicable": ("na", "no such class"),
    "need-raises": ("error", "ZeroDivisionError"),
    "claims-not-applicable": ("error", "NotApplicableError"),
    "cuda": ("skip", "needs a CUDA device"),
    "entered": ("pass", ""),
    "pass": ("pass", ""),
    "leaves-a-registration": ("pass", ""),
    "sees-no-leak": ("pass", ""),
}


def command(*arguments):
    return [sys.executable, "-m", "kvconform", "check", "--suite", str(PLANTED), "--device", "cpu", *arguments]


def check(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=280, check=False)


def read(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("record") / "record.jsonl"
    answer = check("--subject", "native", "--timeout", "6", "--record", str(path))
    return answer, read(path)


def test_exit_code_says_that_checks_failed(run):
    assert run[0].returncode == 1, run[0].stderr


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_outcome(run, name):
    lines = [line for line in run[1] if line["kind"] == "check" and line["id"] == f"planted/{name}"]
    assert len(lines) == 1
    status, message = EXPECTED[name]
    assert lines[0]["status"] == status, lines[0]
    assert message in lines[0]["message"]


def test_every_planned_check_has_a_start_and_an_end(run):
    records = run[1]
    planned = {tuple(check) for line in records if line["kind"] == "planned" for check in line["checks"]}
    for kind in ("started", "check"):
        assert {(line["subject"], line["id"]) for line in records if line["kind"] == kind} == planned
    assert {check.removeprefix("planted/") for _, check in planned} == set(EXPECTED)


def test_record_begins_with_the_cell_and_ends_with_counts(run):
    records = run[1]
    assert records[0]["kind"] == "cell"
    assert records[0]["schema"] == 2
    assert records[-1]["kind"] == "end"
    assert records[-1]["outcome"] == "complete"
    assert sum(records[-1]["counts"].values()) == len(EXPECTED)


def test_messages_carry_no_machine_paths(run):
    told = "".join(line["message"] for line in run[1] if line["kind"] == "check")
    assert str(Path.home()) + "/" not in told
    assert sys.prefix + "/" not in told


def test_one_id_selects_one_check(tmp_path):
    path = tmp_path / "r.jsonl"
    answer = check("--subject", "native", "-k", "planted/exit", "--record", str(path))
    assert answer.returncode == 1
    assert [line["id"] for line in read(path) if line["kind"] == "check"] == ["planted/exit"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-k", "planted/pas"], 3, "near: planted/pass"),
        (["--category", "nonsense"], 3, "there are: planted"),
        (["--subject", "no_such_module:attribute"], 2, "try: python -c"),
        (["--subject", "os:no_such_attribute"], 2, "try: python -c"),
        (["--subject", "os:sep"], 2, "neither a context manager nor callable"),
        (["--subject", "nonsense"], 2, "'exporter', or module:attribute"),
        (["--expect", "torch=0.1"], 4, "expected 0.1"),
        (["--expect", "torch"], 2, "write package=version"),
        (["--jobs", "0"], 2, "give 1 or more"),
        (["--timeout", "-1"], 2, "above 0"),
        (["--nonsense"], 2, "unrecognized arguments"),
    ],
)
def test_usage(arguments, code, said):
    answer = check("--jobs", "1", *([] if "--subject" in arguments else ["--subject", "native"]), *arguments)
    assert answer.returncode == code, answer.stderr
    assert said in answer.stderr


def test_subject_that_raises_is_an_error(tmp_path):
    (tmp_path / "broken_subject.py").write_text("def register():\n    raise KeyError('boom')\n")
    path = tmp_path / "r.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    arguments = command(
        "--subject", "broken_subject:register", "-k", "planted/entered", "--jobs", "1", "--record", str(path)
    )
    subprocess.run(arguments, env=environment, timeout=120, check=False, capture_output=True)
    (line,) = (line for line in read(path) if line["kind"] == "check")
    assert (line["status"], "boom" in line["message"]) == ("error", True)


def test_list_names_ids_categories_and_explanations():
    answer = subprocess.run(
        [sys.executable, "-m", "kvconform", "check", "--list"], capture_output=True, text=True, timeout=120, check=False
    )
    rows = [line.split("\t") for line in answer.stdout.splitlines()]
    assert answer.returncode == 0
    assert len(rows) >= 300
    assert all(len(row) == 3 and row[0].startswith(f"{row[1]}/") and row[2] for row in rows)
    assert len({row[0] for row in rows}) == len(rows)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_ends_its_record(tmp_path, sent):
    path = tmp_path / "r.jsonl"
    arguments = command("--subject", "native", "-k", "planted/hang", "--jobs", "1", "--record", str(path))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        _wait_for(path, '"kind": "started"')
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert read(path)[-1]["outcome"] == "interrupted"
    assert not [line for line in read(path) if line["kind"] == "check"]


def test_killed_run_leaves_a_start_without_an_end(tmp_path):
    path = tmp_path / "r.jsonl"
    arguments = command(
        "--subject", "native", "-k", "planted/hang", "--timeout", "20", "--jobs", "1", "--record", str(path)
    )
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _wait_for(path, '"kind": "started"')
        process.kill()
    assert [line["kind"] for line in read(path)] == ["cell", "planned", "started"]


def _wait_for(path, text):
    for _ in range(600):
        if path.exists() and text in path.read_text("utf-8"):
            return
        time.sleep(0.1)
    pytest.fail(f"{text} never came")


def test_a_reader_that_leaves_hides_no_failure(tmp_path):
    (tmp_path / "test_one.py").write_text("def test_one(subject):\n    assert False\n", encoding="utf-8")
    line = [sys.executable, "-m", "kvconform", "check", "--suite", str(tmp_path), "--subject=native", "--jobs=1"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, "Traceback" in told) == (1, False)


def test_default_subjects_are_found_without_importing_torch():
    script = (
        "import sys; from kvconform_conformance.runner.subjects import default_names; names = default_names(); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; print(*names, sep='\\n')"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.splitlines() == ["kvconform", "native", "kvconform with patches", "exporter"]


# ------------------------------------------------------------------------------------ records that cannot be written


@pytest.mark.parametrize("record", [".", "file/record.jsonl"])
def test_a_record_that_cannot_be_begun_is_refused_before_anything_runs(tmp_path, record):
    (tmp_path / "file").touch()
    answer = subprocess.run(
        command(f"--record={tmp_path / record}"), capture_output=True, text=True, timeout=100, check=False
    )
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("error: --record"), answer.stderr
    assert "a file that can be written" in answer.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
@pytest.mark.parametrize("size", [100, 3_000, 7_000])
def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_was_written(tmp_path, size):
    import resource

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    record = tmp_path / "record.jsonl"
    # `-k`: no check that ends its process, so that the record is all that is cut.
    line = command(f"--record={record}", "--subject=native", "--jobs=1", "-k", "pass or assert or unicode or huge")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run(
        line, env=environment, preexec_fn=fill, capture_output=True, text=True, timeout=200, check=False
    )
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    assert "cannot be written: File too large" in answer.stderr.splitlines()[-1]
    whole = record.read_text("utf-8").rpartition("\n")[0].splitlines()
    assert "end" not in {json.loads(one)["kind"] for one in whole}
