"""Workers are forked from one warm process: what they are given, how they end, and what happens where none can be."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the suite is about transformers")

from kvconform_conformance.runner import warm
from kvconform_conformance.runner.python import ADDRESS

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="forks where the threads can be counted")
LAUNCHER = [sys.executable, "-I", "-S", str(Path(warm.__file__).with_name("python.py"))]
WARM = "import sys, json; print(json.dumps(['torch' in sys.modules, sys.argv, sys.stdin.readline()]))"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as entered:
        # As `check` sets it: where libraries start threads of their own, nothing is forked.
        patch.setenv("OMP_NUM_THREADS", "1")
        command = entered.enter_context(warm.warm_workers(tmp_path_factory.mktemp("warm"), "cpu"))
        assert command.endswith("python.py")
        yield os.environ.pop(ADDRESS)


def launch(address, *arguments, **options):
    environment = {**os.environ, **({ADDRESS: address} if address else {})}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*LAUNCHER, *arguments], env=environment, text=True, **pipes, **options)


def told(address, *arguments, said=""):
    with launch(address, *arguments) as process:
        out, errors = process.communicate(said, timeout=120)
    return process.returncode, out, errors


def test_a_forked_process_has_torch_its_arguments_and_its_streams(address):
    code, out, _ = told(address, "-u", "-c", WARM, "argument", said="line\n")
    assert (code, json.loads(out)) == (0, [True, ["-c", "argument"], "line\n"])


def test_a_module_runs_as_a_program(address):
    code, out, _ = told(address, "-m", "json.tool", said='{"a": 1}')
    assert (code, json.loads(out)) == (0, {"a": 1})


@pytest.mark.parametrize(("script", "code"), [("import os; os._exit(7)", 7), ("import sys; sys.exit(3)", 3)])
def test_exit_codes_pass(address, script, code):
    assert told(address, "-c", script)[0] == code


def test_an_exception_is_told_on_the_error_stream(address):
    code, _, errors = told(address, "-c", "raise ValueError('planted')")
    assert (code, "ValueError: planted" in errors) == (1, True)


def test_a_crash_ends_the_launcher_and_nothing_else(address):
    assert told(address, "-c", "import ctypes; ctypes.string_at(0)")[0] == signal.SIGSEGV
    assert told(address, "-c", "print('next')")[1] == "next\n"


def test_who_ends_the_launcher_ends_the_forked_process(address):
    with launch(address, "-u", "-c", "import os, time; print(os.getpid()); time.sleep(100)") as process:
        forked = int(process.stdout.readline())
        process.kill()
    _until_gone(forked)
    assert told(address, "-c", "print('next')")[1] == "next\n"


def test_ctrl_c_reaches_the_forked_process_whose_answer_counts(address):
    script = "import os, time\ntry:\n print(os.getpid()); time.sleep(100)\nexcept KeyboardInterrupt:\n os._exit(5)"
    with launch(address, "-u", "-c", script) as process:
        forked = int(process.stdout.readline())
        for one in (process.pid, forked):
            os.kill(one, signal.SIGINT)
        assert process.wait(timeout=60) == 5


def test_two_at_once_do_not_share_streams(address):
    with launch(address, "-c", "print(input())") as first, launch(address, "-c", "print(input())") as second:
        assert second.communicate("second", timeout=60)[0] == "second\n"
        assert first.communicate("first", timeout=60)[0] == "first\n"


def test_a_launcher_that_asks_nothing_harms_nobody(address):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendall(b".")
    assert told(address, "-c", "print('next')")[1] == "next\n"


def test_a_plain_python_where_there_is_no_warm_process(tmp_path):
    for nobody in ("", str(tmp_path / "nobody")):
        code, out, _ = told(nobody, "-c", WARM, said="line\n")
        assert (code, json.loads(out)) == (0, [False, ["-c"], "line\n"])


def test_a_plain_python_where_the_warm_process_ends_before_it_forks(tmp_path):
    address = str(tmp_path / "ends")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()

        def end():
            listener.accept()[0].close()

        ending = threading.Thread(target=end)
        ending.start()
        code, out, _ = told(address, "-c", WARM, said="line\n")
        ending.join()
    assert (code, json.loads(out)[0]) == (0, False)


def test_a_process_with_two_threads_does_not_fork():
    count = "import threading; from kvconform_conformance.runner.warm import has_one_thread; print(has_one_thread())"
    code = f"{count}; t = threading.Timer(9, print); t.start(); print(has_one_thread()); t.cancel()"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert answer.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("place", ["cuda", "long"])
def test_plain_workers_where_forking_is_not_safe_or_not_possible(tmp_path, place):
    folder = tmp_path / ("x" * 120) if place == "long" else tmp_path
    with warm.warm_workers(folder, "cuda" if place == "cuda" else "cpu") as command:
        assert command == sys.executable
        assert ADDRESS not in os.environ


SUITE = """
import os
from pathlib import Path

def test_forked(subject):
    parent = Path(f"/proc/{os.getppid()}/cmdline").read_text()
    assert "runner.warm" in parent, parent
"""


@pytest.mark.parametrize(("name", "code"), [("t", 0), ("x" * 110, 1)], ids=["forked", "plain"])
def test_workers_of_a_run(tmp_path, name, code):
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "test_one.py").write_text(SUITE, encoding="utf-8")
    (tmp_path / name).mkdir()
    line = [sys.executable, "-m", "kvconform", "check", "--suite", str(tmp_path / "suite"), "--subject=native"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / name)}
    answer = subprocess.run(
        [*line, "--jobs=1", "--device=cpu"], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == code, answer.stdout + answer.stderr
    assert "1 of 1 checks" in answer.stdout


def test_nothing_of_an_interrupted_run_stays(tmp_path):
    (tmp_path / "test_one.py").write_text(
        "import time\ndef test_one(subject):\n    time.sleep(200)\n", encoding="utf-8"
    )
    record = tmp_path / "record.jsonl"
    line = [sys.executable, "-m", "kvconform", "check", "--suite", str(tmp_path), "--subject=native", "--jobs=2"]
    with subprocess.Popen([*line, f"--record={record}"], start_new_session=True, stderr=subprocess.PIPE) as process:
        for _ in range(1200):
            if record.exists() and '"kind": "started"' in record.read_text("utf-8"):
                break
            time.sleep(0.1)
        # As a terminal does: to every process of the group.
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=60)[1].decode()
    assert (process.returncode, "interrupted" in errors, "Traceback" in errors) == (130, True, False)
    left = [path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if _group(path) == process.pid]
    for one in left:
        _until_gone(one)


def test_a_run_that_is_refused_before_its_workers_leaves_nothing_that_imports(tmp_path):
    line = [sys.executable, "-m", "kvconform", "check", "--subject=native", f"--record={tmp_path}"]
    with subprocess.Popen(line, start_new_session=True, stderr=subprocess.PIPE) as process:
        errors = process.communicate(timeout=60)[1].decode()
    left = [path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if _group(path) == process.pid]
    assert (process.returncode, "--record" in errors, "Traceback" in errors, left) == (2, True, False, [])


def _group(stat):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return int(stat.read_text("utf-8", "replace").rpartition(")")[2].split()[2])
    return None


def _until_gone(process):
    for _ in range(200):
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.1)
                continue
        return
    pytest.fail(f"process {process} did not end")
