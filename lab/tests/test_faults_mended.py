# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever was broken, `fault clear` puts the lab back into working order: backups, transfers and the target work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ovirtlab.faults.active import FAULTS

from .running_lab import Lab, running_lab, wait

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_isolation"), pytest.mark.xdist_group("faults_mended")]
ENVIRONMENT = """
hosts: [{name: alpha}, {name: beta}]
time_scale: 20
storage_domains: [{name: data, size: 96 MiB}]
exports: [{name: backup, size: 16 MiB}]
vms:
  - {name: plain, host: alpha, disks: [{name: d1, size: 16 MiB, backup: incremental}]}
  - {name: other, host: beta, disks: [{name: d2, size: 16 MiB, backup: incremental}]}
"""
MIB = 1 << 20
BROKEN: dict[str, dict[str, Any]] = {
    "vm-kill": {"vm": "plain"},
    "vm-power-off": {"vm": "plain"},
    "host-kill": {"host": "alpha"},
    "disk-slow": {"vm": "plain", "target": "vda", "iops": 1},
    "bitmap-lose": {"vm": "plain"},
    "bitmap-break": {"vm": "plain"},
    "storage-full": {},
    "nfs-full": {},
    "imageio-kill": {"host": "alpha"},
    "imageio-restart": {"host": "alpha"},
    "extents-slow": {"host": "alpha", "seconds": 30},
    "nfs-kill": {},
    "nfs-restart": {},
    "nfs-freeze": {},
    "nfs-read-only": {},
    "network-cut": {"host": "alpha", "how": "drop"},
    "link-slow": {"host": "alpha", "rate": "64kbit"},
    "engine-restart": {},
    "tokens-expire": {},
    "act-refused": {"act": "merge"},
    "call-fail": {"path": "vms/*/backups", "count": 0},
    "call-hang": {"path": "imagetransfers", "count": 0, "seconds": 600},
}


@pytest.fixture(scope="module")
def lab(needs_isolation: None) -> Iterator[Lab]:
    with running_lab(ENVIRONMENT) as running:
        yield running


def works(lab: Lab) -> None:
    """All parts answer, and both VMs are backed up, each through the daemon of its host, with what was written."""
    assert lab.faults.active() == []
    assert [lab.host_status(name) for name in ("alpha", "beta")] == ["up", "up"]
    assert all(host["imageio"] for host in lab.status()["hosts"])
    assert lab.status()["nfs"] is True
    for place in lab.facts["target"]["mounts"].values():
        file = Path(place) / "file"
        file.write_bytes(b"x" * MIB)
        assert file.read_bytes() == b"x" * MIB
        file.unlink()
    for number, vm in enumerate(("plain", "other"), start=1):
        assert lab.state(vm) == "up"
        lab.io(vm, f"write -P {number} {number}M 1M")
        backup = lab.begin_backup(vm)
        content = lab.download(vm, backup)
        assert content[number * MIB : (number + 1) * MIB] == bytes([number]) * MIB
        assert lab.end_backup(backup) == "succeeded"


def test_every_fault_is_here() -> None:
    assert set(BROKEN) == set(FAULTS)


@pytest.mark.parametrize("name", BROKEN)
def test_the_lab_works_again(lab: Lab, name: str) -> None:
    assert lab.back_up("plain")[0] == "succeeded"  # so that there are bitmaps
    lab.faults.do(name, **BROKEN[name])
    lab.faults.clear()
    works(lab)


def test_what_is_said_of_what_stays(lab: Lab) -> None:
    """A lost bitmap stays lost; who clears is told."""
    checkpoint = lab.back_up("plain")[1]
    lab.faults.do("bitmap-lose", vm="plain", checkpoint=checkpoint)
    lab.faults.do("imageio-kill", host="beta")
    cleared = lab.faults.mend()
    assert len(cleared.ids) == 1
    assert [text.partition(":")[0] for text in cleared.remains] == ["bitmap-lose", "imageio-kill"]
    assert "stay lost" in cleared.remains[0]
    assert lab.faults.mend().remains == []
    assert lab.back_up("plain", checkpoint)[0] == "[]"
    assert lab.back_up("plain")[0] == "succeeded"


Seen = Callable[[Lab, str, str, int], bool]


def gone(lab: Lab, backup: str, transfer: str, since: int) -> bool:
    """The VM is down; the backup waits for somebody to finalize it, with the disk locked."""
    return (lab.state("plain"), lab.phase(backup), lab.disk_status("plain")) == ("down", "ready", "locked")


def abandoned(lab: Lab, backup: str, transfer: str, since: int) -> bool:
    return 10814 in lab.codes(since) and (lab.phase(backup), lab.disk_status("plain")) == ("failed", "locked")


def without_ticket(lab: Lab, backup: str, transfer: str, since: int) -> bool:
    """The transfer fails, and the backup goes on."""
    return lab.phase(transfer) == "finished_failure" and 1065 in lab.codes(since) and lab.phase(backup) == "ready"


def unknown(lab: Lab, backup: str, transfer: str, since: int) -> bool:
    return lab.state("plain") == "unknown" and without_ticket(lab, backup, transfer, since)


DURING: Mapping[str, Seen] = {
    "vm-kill": gone,
    "vm-power-off": gone,
    "host-kill": gone,
    "imageio-kill": without_ticket,
    "imageio-restart": without_ticket,
    "network-cut": unknown,
    "engine-restart": abandoned,
}


@pytest.mark.parametrize("name", DURING)
def test_the_lab_works_again_after_a_backup_was_hit(lab: Lab, name: str) -> None:
    """Also when nobody has ended the backup, nor its transfer."""
    backup = lab.begin_backup("plain")
    transfer = lab.begin_transfer("plain", backup)
    since = lab.last_event()
    lab.faults.do(name, **BROKEN[name])
    wait(lambda: DURING[name](lab, backup, transfer, since))
    lab.faults.clear()
    if lab.phase(backup) == "ready":  # the backup itself was not hit, and goes on
        wait(lambda: lab.phase(transfer).startswith("finished"))
        assert lab.download("plain", backup)
        assert lab.end_backup(backup) == "succeeded"
    works(lab)
