from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overkeep.controller.durable import Durable
from overkeep.controller.guard import AnotherController, Guard

# A workflow of three steps, each of which appends to a file; the second one waits until a file appears.
PROGRAM = """
import sys, time
from pathlib import Path
from overkeep.controller.durable import Durable

folder = Path(sys.argv[1])

def write(word):
    with (folder / "log").open("a") as log:
        log.write(word + "\\n")
    return word

def slow(word):
    write(word)
    while not (folder / "go").exists():
        time.sleep(0.02)
    return word

def body(name):
    words = [Durable.step("one", write, f"{name}-one")]
    words.append(Durable.step("two", slow, f"{name}-two"))
    words.append(Durable.step("three", write, f"{name}-three"))
    return words

durable = Durable(folder, queues={"q": 0})
durable.workflow("body", body)
durable.start()
durable.submit("body", "w", "w", queue="q")
while durable.open(["w"]):
    time.sleep(0.05)
print(durable.status("w"))
durable.stop()
"""


def test_a_killed_process_leaves_its_workflow_to_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    log = tmp_path / "log"
    with subprocess.Popen(command, start_new_session=True) as first:
        try:
            _until(lambda: log.exists() and "w-two" in log.read_text())
        finally:
            os.kill(first.pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert second.stdout.strip() == "SUCCESS"
    assert log.read_text().split() == ["w-one", "w-two", "w-two", "w-three"]


def test_results_are_the_same_at_first_and_on_replay(tmp_path: Path) -> None:
    seen = []
    durable = Durable(tmp_path, queues={"q": 0})
    durable.workflow("body", lambda: seen.append(Durable.step("s", lambda: {"pair": (1, 2)})))
    durable.start()
    try:
        durable.submit("body", "a", queue="q")
        _until(lambda: not durable.open(["a"]))
        durable.retry_from("a", 2)
        _until(lambda: len(seen) == 2)
        assert seen == [{"pair": [1, 2]}, {"pair": [1, 2]}]
        _until(lambda: not durable.open(["a"]))
        assert durable.gc(dt.timedelta(0)) == 1
        assert durable.status("a") is None
    finally:
        durable.stop()


def test_the_same_id_runs_once(tmp_path: Path) -> None:
    runs = []
    durable = Durable(tmp_path, queues={"q": 0})
    durable.workflow("body", lambda: runs.append(1))
    durable.start()
    try:
        durable.submit("body", "a", queue="q")
        durable.submit("body", "a", queue="q")
        _until(lambda: not durable.open(["a"]))
        assert runs == [1]
    finally:
        durable.stop()


def test_a_second_controller_is_refused(tmp_path: Path) -> None:
    with Guard(tmp_path), pytest.raises(AnotherController, match=str(os.getpid())), Guard(tmp_path):
        pass
    with Guard(tmp_path):
        pass


def _until(probe, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.02)
