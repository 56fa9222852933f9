# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults that a guest feels: no space for its disk or for the scratch disk of its backup, and its own power-off."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ovirtlab.remote import call

from .running_lab import DEADLINE, Lab, running_lab, wait

pytestmark = [
    pytest.mark.lab,
    pytest.mark.guest,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("needs_isolation"),
    pytest.mark.xdist_group("faults_guest"),
]
ENVIRONMENT = """
hosts: [{name: alpha}]
time_scale: 20
storage_domains: [{name: small, size: 512 MiB}]
vms:
  - {name: web, guest: linux, memory: 128 MiB, disks: [{size: 1 GiB, backup: incremental}]}
"""


@pytest.fixture(scope="module")
def lab(needs_isolation: None) -> Iterator[Lab]:
    with running_lab(ENVIRONMENT) as running:
        yield running


class Writing:
    """A guest's `dd` of random data into a file, in the background; it hangs while the guest is paused."""

    def __init__(self, lab: Lab, file: str) -> None:
        command = f"dd if=/dev/urandom of={file} conv=notrunc bs=1M count=32 && sync"
        self._lab, self._words = lab, ["/bin/sh", "-c", command]
        self._status: list[int] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._status.append(call(self._lab.places, "POST", "vms", "web", "exec", body={"argv": self._words})["status"])

    def ended_well(self) -> bool:
        self._thread.join(DEADLINE)
        return self._status == [0]


def test_a_guest_without_space_is_paused_and_goes_on_when_there_is_some(lab: Lab) -> None:
    since = lab.last_event()
    lab.faults.do("storage-full", domain="small", leave=1 << 20)
    writing = Writing(lab, "/data/file")
    wait(lambda: lab.state("web") == "paused")
    assert 138 in lab.codes(since)  # paused due to no storage space
    lab.faults.clear()
    assert lab.state("web") == "up"
    assert writing.ended_well()


def test_a_guest_whose_backup_has_no_scratch_space_is_paused_and_goes_on(lab: Lab) -> None:
    """Old data that the guest overwrites cannot be kept for the backup; with space again all is as it should be."""
    assert Writing(lab, "/data/old").ended_well()
    backup = lab.begin_backup("web")
    since = lab.last_event()
    lab.faults.do("storage-full", domain="small", leave=1 << 20)
    writing = Writing(lab, "/data/old")  # in place: the disk itself needs no space
    wait(lambda: lab.state("web") == "paused")
    assert 138 in lab.codes(since)
    assert lab.phase(backup) == "ready"
    lab.faults.clear()
    assert lab.state("web") == "up"
    assert writing.ended_well()
    assert len(lab.download("web", backup)) == 1 << 30
    assert lab.end_backup(backup) == "succeeded"


def test_a_guest_that_powers_itself_off(lab: Lab) -> None:
    since = lab.last_event()
    lab.faults.do("vm-power-off", vm="web")
    wait(lambda: lab.state("web") == "down")
    assert 61 in lab.codes(since)  # is down, by itself
    lab.faults.clear()
    assert lab.state("web") == "up"
    assert lab.back_up("web")[0] == "succeeded"
