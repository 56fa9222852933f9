# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `ovirtlab`, run as a user runs it: whole labs that start, work, fail, crash, and leave nothing."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ovirtlab import teardown
from ovirtlab.ledger import start_time

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_isolation")]
OVIRTLAB = Path(sys.executable).with_name("ovirtlab")
SMALL = """
hosts: [{name: alpha}, {name: beta}]
vms:
  - name: plain
    host: beta
    disks: [{name: d1, size: 64 MiB, backup: incremental}, {name: d2, size: 8 MiB, format: raw}]
  - {name: idle, running: false, disks: [{size: 8 MiB}]}
"""


def lab(*words: str | Path, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    """Run `ovirtlab` to its end, whatever its status."""
    return subprocess.run([OVIRTLAB, *words], capture_output=True, text=True, timeout=timeout, check=False)


def facts(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "lab.json").read_text())
    return document


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def running(lab_directory: Path, environment: Path) -> Iterator[Path]:
    """A lab of two hosts and two VMs without guest."""
    started = lab("up", "--dir", lab_directory, "--environment", environment)
    assert started.returncode == 0, started.stderr
    yield lab_directory
    lab("down", "--dir", lab_directory)
    assert teardown.leftovers(lab_directory) == []


def test_a_lab_works_and_goes_without_a_trace(running: Path, environment: Path):
    document = facts(running)
    assert (running / "lab.json").stat().st_mode & 0o777 == 0o600
    assert [(host["name"], host["ports"]) for host in document["hosts"]] == [
        ("alpha", {"imageio": 54322}),
        ("beta", {"imageio": 54322}),
    ]
    (plain, _) = document["vms"]
    assert [(disk["name"], disk["format"], disk["size"]) for disk in plain["disks"]] == [
        ("d1", "qcow2", 64 << 20),
        ("d2", "raw", 8 << 20),
    ]
    assert set(document["target"]["mounts"]) == {"alpha", "beta", "controller"}

    trusting = ssl.create_default_context(cafile=document["ca_file"])
    health = document["engine_url"].replace("/api", "/services/health")
    with urllib.request.urlopen(health, timeout=90, context=trusting) as answer:
        assert answer.status == 200

    said = lab("status", "--dir", running).stdout
    assert "VM plain: up on beta" in said
    assert "VM idle: down" in said

    for vm in ("plain", plain["id"]):
        assert "wrote" in lab("guest", "io", "--dir", running, vm, "vda", "write -P 0x5a 1M 1M").stdout
    wrong = lab("guest", "io", "--dir", running, "plain", "vda", "read -P 0x5b 1M 1M")
    assert wrong.returncode == 1
    assert "Pattern verification failed" in wrong.stderr
    for vm, words in (("plain", "has no guest"), ("idle", "is not running"), ("none", "there are: plain, idle")):
        refused = lab("guest", "exec", "--dir", running, vm, "--", "true")
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert words in refused.stderr

    second = lab("up", "--dir", running, "--environment", environment)
    assert second.returncode == 1
    assert "is up" in second.stderr

    assert "imageio" in lab("logs", "--dir", running, "--host", "alpha").stdout
    assert "started" in lab("logs", "--dir", running).stdout

    processes = [document["pid"], *(host["imageio"] for host in _status(running)["hosts"])]
    ended = lab("down", "--dir", running)
    assert ended.returncode == 0
    assert all(start_time(pid) is None for pid in processes)
    assert not running.exists()
    assert "nothing of a lab is left" in lab("down", "--dir", running).stdout


def _status(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(lab("status", "--json", "--dir", directory).stdout)
    return document


def test_down_cleans_up_after_a_supervisor_that_was_killed(running: Path):
    document = facts(running)
    netns = document["hosts"][0]["netns"]
    # what a product would do: mount the target for itself, in a mount namespace of its own
    place = running / "product"
    place.mkdir()
    command = [*document["target"]["mount_command"], "-o", document["target"]["options"]]
    subprocess.run(
        ["ip", "netns", "exec", netns, *command, document["target"]["source"], place], check=True, timeout=90
    )
    # a file that is open keeps the mount busy; its close fails when the mount is gone
    with suppress(OSError), (Path(document["target"]["mounts"]["controller"]) / "open").open("w") as file:
        file.write("still open")
        os.kill(document["pid"], signal.SIGKILL)
        left = teardown.leftovers(running)
        assert any(text.startswith("mount") for text in left)
        assert any("namespace" in text for text in left)
        ended = lab("down", "--dir", running)
    assert ended.returncode == 0, ended.stderr
    assert teardown.leftovers(running) == []
    place.rmdir()


def test_up_after_a_crash_cleans_and_starts(running: Path, environment: Path):
    os.kill(facts(running)["pid"], signal.SIGKILL)
    again = lab("up", "--dir", running, "--environment", environment)
    assert again.returncode == 0, again.stderr
    assert "removed what a crashed lab had left" in again.stdout
    assert "VM plain: up" in lab("status", "--dir", running).stdout


def test_faults_of_the_fabric_and_their_end(running: Path):
    assert lab("fault", "nfs", "--dir", running, "kill").returncode == 0
    assert lab("fault", "imageio", "--dir", running, "alpha", "kill").returncode == 0
    assert lab("fault", "vm", "--dir", running, "plain").returncode == 0
    said = lab("status", "--dir", running).stdout
    assert "NFS server: does not answer" in said
    assert "host alpha: imageio is down" in said
    assert "VM plain: down" in said
    assert lab("fault", "nfs", "--dir", running, "restart").returncode == 0
    assert lab("fault", "imageio", "--dir", running, "alpha", "restart").returncode == 0
    said = lab("status", "--dir", running).stdout
    assert "NFS server: answers" in said
    assert "host alpha: imageio runs" in said
    assert "there is no host" in lab("fault", "imageio", "--dir", running, "gamma", "kill").stderr
    assert lab("fault", "nfs", "--dir", running, "freeze").returncode == 0
    in_force = [line.split()[1] for line in lab("fault", "status", "--dir", running).stdout.splitlines()]
    assert in_force == ["vm-kill", "nfs-freeze"]
    cleared = lab("fault", "clear", "--dir", running).stdout
    assert "stays as it is: vm-kill: bitmaps" in cleared
    said = lab("status", "--dir", running).stdout
    assert "NFS server: answers" in said
    assert "VM plain: up" in said
    assert "not frozen" in lab("fault", "nfs", "--dir", running, "thaw").stderr


def test_a_lab_that_cannot_start_says_why_and_leaves_nothing(lab_directory: Path, tmp_path: Path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(SMALL + "settings: {no_such_setting: 1}\n")
    failed = lab("up", "--dir", lab_directory, "--environment", wrong)
    assert failed.returncode == 1
    assert "no_such_setting" in failed.stderr.splitlines()[0]
    assert teardown.leftovers(lab_directory) == []
    assert not lab_directory.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hosts", "0"], "makes no lab"),
        (["--environment", "/none.yaml"], "cannot be read"),
        (["--dir", "/tmp/" + "x" * 90], "too long for the unix sockets"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(lab_directory: Path, words: list[str], said: str):
    refused = lab("up", "--dir", lab_directory, *words)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert list(lab_directory.iterdir()) == []


def test_a_directory_that_is_not_a_labs_is_left_alone(lab_directory: Path):
    (lab_directory / "storage").mkdir()
    (lab_directory / "storage" / "precious").write_text("keep")
    refused = lab("up", "--dir", lab_directory)
    assert refused.returncode == 1
    assert "holds no lab" in refused.stderr
    assert lab("down", "--dir", lab_directory).returncode == 0
    assert (lab_directory / "storage" / "precious").read_text() == "keep"


def test_without_a_lab_commands_say_so(lab_directory: Path):
    for words in (["status"], ["guest", "exec"], ["fault", "vm"]):
        rest = [] if words == ["status"] else ["web", "true"][: 2 if words[0] == "guest" else 1]
        failed = lab(*words, "--dir", lab_directory, *rest)
        assert failed.returncode == 1
        assert "No lab is up" in failed.stderr


@pytest.mark.guest
@pytest.mark.timeout(400)
def test_the_default_lab_runs_commands_in_its_guests(lab_directory: Path):
    started = lab("up", "--dir", lab_directory, timeout=360)
    assert started.returncode == 0, started.stderr
    for vm in ("web", "db"):  # through the agent, and through the console where there is none
        done = lab(
            "guest", "exec", "--dir", lab_directory, vm, "--", "/bin/sh", "-c", "hostname; echo oops >&2; exit 3"
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, f"{vm}\n", "oops\n")
    assert lab("down", "--dir", lab_directory).returncode == 0
    assert teardown.leftovers(lab_directory) == []
