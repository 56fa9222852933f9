# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab's host tells QEMU in a backup is what libvirt tells it, and it refuses what libvirt refuses."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lab.tests.libvirt_conformance.conftest import Both
from lab.tests.libvirt_conformance.sides import Command, Plan, Refused

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("libvirt")]

VDA, VDB = ("vda", "qcow2"), ("vdb", "qcow2")
RAW = ("vdb", "raw")


def full(*targets: str) -> Plan:
    return tuple((target, None, True) for target in targets)


def since(checkpoint: str, *targets: str) -> Plan:
    return tuple((target, checkpoint, True) for target in targets)


def exports(socket: Path) -> list[str]:
    """What an NBD client is offered: names, sizes and metadata contexts of all exports."""
    listed = subprocess.run(
        ["qemu-nbd", "--list", "-k", socket], check=True, capture_output=True, text=True, timeout=90
    )
    return [line.strip() for line in listed.stdout.splitlines()]


def dirty(socket: Path, target: str) -> list[tuple[int, int]]:
    """(start, length) of what the exported bitmap marks."""
    image = f"driver=nbd,export={target},server.type=unix,server.path={socket}"
    image += f",x-dirty-bitmap=qemu:dirty-bitmap:backup-{target}"
    argv = ["qemu-img", "map", "--output=json", "--image-opts", image]
    mapped = json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=90).stdout)
    return [(extent["start"], extent["length"]) for extent in mapped if not extent["data"]]


def stored(disk: Path) -> dict[str, list[str]]:
    """The bitmaps in a disk that no VM uses."""
    said = subprocess.run(["qemu-img", "info", "--output=json", disk], check=True, capture_output=True, timeout=90)
    found = json.loads(said.stdout)["format-specific"]["data"].get("bitmaps", [])
    return {bitmap["name"]: sorted(bitmap["flags"]) for bitmap in found}


def test_full_backup_of_one_disk(both: Both):
    both.start(VDA)
    both.do(lambda side: side.begin("cp1", full("vda")))
    theirs, ours = both.sent()
    assert "blockdev-backup" in str(theirs)
    assert ours == theirs


def test_incremental_backup_of_one_disk(both: Both):
    both.start(VDA)
    both.do(lambda side: side.begin("cp1", full("vda")))
    both.do(lambda side: side.stop())
    both.sent()
    both.do(lambda side: side.begin("cp2", since("cp1", "vda")))
    theirs, ours = both.sent()
    assert "block-dirty-bitmap-merge" in str(theirs)
    assert ours == theirs


def test_two_disks_in_one_transaction(both: Both):
    both.start(VDA, VDB)
    both.do(lambda side: side.begin("cp1", full("vda", "vdb")))
    theirs, ours = both.sent()
    assert ours == theirs
    both.do(lambda side: side.stop())
    both.sent()
    both.do(lambda side: side.begin("cp2", since("cp1", "vda", "vdb")))
    theirs, ours = both.sent()
    assert ours == theirs


def test_increment_of_one_disk_with_a_full_of_another(both: Both):
    """A raw disk takes no checkpoint; its backup is always full."""
    both.start(VDA, RAW)
    both.do(lambda side: side.begin("cp1", (("vda", None, True), ("vdb", None, False))))
    both.do(lambda side: side.stop())
    both.sent()
    both.do(lambda side: side.begin("cp2", (("vda", "cp1", True), ("vdb", None, False))))
    theirs, ours = both.sent()
    assert ours == theirs


def order(commands: list[Command]) -> list[Any]:
    """Ends of a backup, in an order that both must keep.

    libvirt follows each job's events, so that of two jobs that end at one moment either may be tidied up first, and
    it stops the server after each of them.
    """
    seen: list[Any] = []
    for command in commands:
        if command not in seen:
            seen.append(command)
    return sorted(seen, key=lambda command: (_stage(command), str(command)))


def _stage(command: Command) -> int:
    name, arguments = command
    stages = ("block-job-cancel", "job-dismiss", "nbd-server-stop", "blockdev-del")
    return stages.index(name) * 2 + str(arguments.get("node-name", "")).endswith("-storage")


def by_disk(commands: list[Command], target: str) -> list[Command]:
    """The commands of one disk and of the server, in the order they were sent."""
    found = [command for command in commands if target in str(command) or command[0] == "nbd-server-stop"]
    return [command for place, command in enumerate(found) if command not in found[:place]]


def test_end_of_a_backup(both: Both):
    both.start(VDA)
    both.do(lambda side: side.begin("cp1", full("vda")))
    both.sent()
    both.do(lambda side: side.stop())
    theirs, ours = both.sent()
    assert [name for name, _ in theirs] == [
        "block-job-cancel",
        "job-dismiss",
        "nbd-server-stop",
        "blockdev-del",
        "blockdev-del",
    ]
    assert ours == theirs


def test_end_of_a_backup_of_two_disks(both: Both):
    both.start(VDA, VDB)
    both.do(lambda side: side.begin("cp1", full("vda", "vdb")))
    both.sent()
    sockets = both.do(lambda side: side.directory)
    both.do(lambda side: side.stop())
    theirs, ours = both.sent()
    assert order(ours) == order(theirs)
    assert by_disk(ours, "vda") == by_disk(theirs, "vda")
    assert [name for name, _ in ours][:2] == [name for name, _ in theirs][:2] == ["block-job-cancel"] * 2
    assert not [left for directory in sockets for left in directory.glob("**/backup") if left.is_socket()]


def test_readers_find_the_same(both: Both):
    both.start(VDA, RAW)
    sockets = both.do(lambda side: side.begin("cp1", (("vda", None, True), ("vdb", None, False))))
    theirs, ours = (exports(socket) for socket in sockets)
    assert any("export: 'vdb'" in line for line in theirs)
    assert ours == theirs
    both.do(lambda side: side.write("vda", "write -P 1 1M 64k"))
    both.do(lambda side: side.stop())
    both.do(lambda side: side.write("vda", "write -P 2 10M 128k"))
    sockets = both.do(lambda side: side.begin("cp2", (("vda", "cp1", True), ("vdb", None, False))))
    theirs, ours = (exports(socket) for socket in sockets)
    assert any(re.search("qemu:dirty-bitmap:backup-vda", line) for line in theirs)
    assert ours == theirs
    both.do(lambda side: side.write("vda", "write -P 3 20M 64k"))
    marked = [dirty(socket, "vda") for socket in sockets]
    assert marked[0] == [(1 << 20, 65536), (10 << 20, 131072)]
    assert marked[1] == marked[0]


def test_bitmaps_are_stored_and_known_again_when_redefined(both: Both):
    both.start(VDA)
    both.do(lambda side: side.begin("cp1", full("vda")))
    both.do(lambda side: side.stop())
    both.do(lambda side: side.power_off())
    assert [stored(side.directory / "vda.qcow2") for side in (both.libvirt, both.ours)] == [{"cp1": ["auto"]}] * 2
    both.restart(VDA)
    assert both.codes(lambda side: side.begin("cp2", since("cp1", "vda"))) == (103, 103)
    assert both.codes(lambda side: side.redefine("never-made", ("vda",))) == (109, 109)
    both.do(lambda side: side.redefine("cp1", ("vda",)))
    both.do(lambda side: side.begin("cp2", since("cp1", "vda")))


def test_a_checkpoint_is_redefined_over_the_disks_that_it_is_told_to_cover(both: Both):
    both.start(VDA, VDB)
    both.do(lambda side: side.begin("cp1", full("vda", "vdb")))
    both.do(lambda side: side.stop())
    both.do(lambda side: side.power_off())
    both.restart(VDA, VDB)
    both.do(lambda side: side.lose_bitmap("vdb", "cp1"))
    assert both.codes(lambda side: side.redefine("cp1", ("vda", "vdb"))) == (109, 109)
    both.do(lambda side: side.redefine("cp1", ("vda",)))


def test_a_vm_that_was_killed_has_broken_checkpoints(both: Both):
    both.start(VDA)
    both.do(lambda side: side.begin("cp1", full("vda")))
    both.do(lambda side: side.stop())
    both.do(lambda side: side.power_off())
    both.restart(VDA)
    both.do(lambda side: side.kill())
    both.do(lambda side: side.power_off())
    both.restart(VDA)
    assert both.codes(lambda side: side.redefine("cp1", ("vda",))) == (109, 109)
    both.do(lambda side: side.power_off())
    kept = [stored(side.directory / "vda.qcow2") for side in (both.libvirt, both.ours)]
    assert kept[0] == {"cp1": ["auto", "in-use"]}
    assert kept[1] == kept[0]


def test_a_checkpoint_is_removed_with_its_bitmaps(both: Both):
    both.start(VDA, VDB)
    both.do(lambda side: side.begin("cp1", full("vda", "vdb")))
    both.do(lambda side: side.stop())
    both.do(lambda side: side.begin("cp2", since("cp1", "vda", "vdb")))
    both.do(lambda side: side.stop())
    both.sent()
    both.do(lambda side: side.delete("cp1"))
    theirs, ours = both.sent()
    assert ours == theirs
    both.do(lambda side: side.lose_bitmap("vda", "cp2"))
    both.sent()
    assert both.codes(lambda side: side.begin("cp3", since("cp2", "vda"))) == (109, 109)
    assert both.sent() == ([], [])


def test_a_lost_bitmap_cannot_be_removed(both: Both):
    both.start(VDA)
    both.do(lambda side: side.begin("cp1", full("vda")))
    both.do(lambda side: side.stop())
    both.do(lambda side: side.lose_bitmap("vda", "cp1"))
    assert both.codes(lambda side: side.delete("cp1")) == (1, 1)


def test_a_backup_that_cannot_start_is_undone(both: Both):
    """The name of the new bitmap is taken: the transaction fails as a whole, and so does the backup."""
    both.start(VDA, VDB)
    both.do(lambda side: side.begin("cp1", full("vda", "vdb")))
    both.do(lambda side: side.stop())
    both.do(lambda side: side.power_off())
    both.restart(VDA, VDB)
    for side in (both.libvirt, both.ours):
        with pytest.raises(Refused):
            side.begin("cp1", full("vda", "vdb"))
    theirs, ours = both.sent()
    failed = [name for name, _ in theirs].index("transaction")
    assert ours[: failed + 1] == theirs[: failed + 1]
    assert order(ours[failed + 1 :]) == order(theirs[failed + 1 :])


@pytest.mark.slow
def test_a_second_backup_waits_for_the_lock_in_vain(both: Both):
    """libvirt waits 30 seconds before it says so; the lab does not."""
    both.start(VDA)
    both.do(lambda side: side.begin("cp1", full("vda")))
    both.sent()
    assert both.codes(lambda side: side.begin("cp2", full("vda"))) == (68, 68)
    assert both.sent() == ([], [])
