# SPDX-License-Identifier: GPL-3.0-or-later
"""What programs learn from a target that is full, read-only, or gives root no rights: the true error, and in time."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ovirtlab import teardown
from ovirtlab.fabric import net
from ovirtlab.fabric.assembly import unmount
from ovirtlab.fabric.mount import mount
from ovirtlab.fabric.nfs import Export, NfsServer
from ovirtlab.ledger import Ledger

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("fabric_exports")]
MIB = 1 << 20
SMALL = 24 * MIB

Mounter = Callable[[str], Path]


@pytest.fixture(scope="module")
def mounter(needs_isolation: None) -> Iterator[Mounter]:
    """Mount one of the exports `small` (24 MiB in all), `fixed` (read-only) and `squashed` (root is nobody)."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="ovl-"))
        stack.callback(subprocess.run, ["rm", "-rf", "--one-file-system", directory], check=True, timeout=90)
        stack.callback(teardown.tear_down, directory)
        ledger = Ledger(directory)
        stack.callback(net.remove, ledger.lab_id)
        network = net.build(["h1"], ledger)
        (directory / "nfs").mkdir()
        exports = [
            Export(name="small", path=_small_file_system(directory, stack)),
            Export(name="fixed", path=directory / "fixed", read_only=True),
            Export(name="squashed", path=directory / "squashed", squash_root=True),
        ]
        server = NfsServer(directory / "nfs", network, exports, ledger=ledger)
        stack.callback(server.stop)
        server.start()

        def mounted(export: str) -> Path:
            place = directory / f"on-{export}"
            place.mkdir()
            stack.callback(unmount, place)
            mount(server.source(export), place, f"vers=3,port={server.port},mountport={server.mount_port}")
            return place

        yield mounted


def _small_file_system(directory: Path, stack: ExitStack) -> Path:
    image, place = directory / "small.img", directory / "small"
    with image.open("wb") as file:
        file.truncate(SMALL)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image], check=True, timeout=90)
    subprocess.run(["mount", "-o", "loop", image, place], check=True, timeout=90)
    stack.callback(subprocess.run, ["umount", place], check=True, timeout=90)
    return place


def _fill(file: io.FileIO, content: bytes) -> None:
    for _ in range(2 * SMALL // len(content)):
        assert file.write(content) == len(content)


def test_a_full_target_says_no_space_to_every_program(mounter: Mounter):
    place = mounter("small")
    content = os.urandom(MIB)
    with (place / "big").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left") as caught:
        _fill(file, content)
    assert caught.value.errno == errno.ENOSPC
    copied = subprocess.run(
        ["qemu-img", "create", "-f", "qcow2", "-o", "preallocation=full", place / "q.qcow2", "48M"],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert copied.returncode != 0
    assert b"No space left" in copied.stderr
    (place / "big").unlink()
    (place / "q.qcow2").unlink(missing_ok=True)
    (place / "fits").write_bytes(content)
    assert (place / "fits").read_bytes() == content


def test_a_read_only_export_says_so(mounter: Mounter):
    place = mounter("fixed")
    for act in ((place / "new").touch, (place / "folder").mkdir):
        with pytest.raises(OSError, match="Read-only file system") as caught:
            act()
        assert caught.value.errno == errno.EROFS


def test_root_without_rights_is_told(mounter: Mounter):
    place = mounter("squashed")
    with pytest.raises(PermissionError):
        (place / "new").touch()
