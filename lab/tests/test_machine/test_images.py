# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of a guest's disks, and the mark of one nobody has written to."""

import asyncio
import json
import subprocess

import pytest

from ovirtlab.machine import images
from ovirtlab.machine.parts import find_parts

MIB = 1 << 20


def test_the_first_disk_holds_a_system_and_no_more_than_it_needs(tmp_path):
    disk = tmp_path / "vda"
    asyncio.run(images.make_system_disk(disk, 128 * MIB, parts=find_parts()))
    subprocess.run(["e2fsck", "-fn", disk], check=True, timeout=90, capture_output=True)
    shown = subprocess.run(["debugfs", "-R", "ls -p /sbin", disk], check=True, timeout=90, capture_output=True).stdout
    assert b"/init/" in shown
    assert b"/shutdown/" in shown
    assert disk.stat().st_blocks * 512 < 16 * MIB


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_copy_has_the_size_and_format_wanted(tmp_path, fmt):
    source, sink = tmp_path / "source", tmp_path / "sink"
    source.write_bytes(b"\x01" * 65536 + bytes(4 * MIB - 65536))
    asyncio.run(images.copy(source, sink, source_format="raw", sink_format=fmt))
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", "-f", fmt, sink], timeout=90))
    assert info["virtual-size"] == 4 * MIB
    assert sink.stat().st_blocks * 512 < MIB


def test_a_written_copy_is_untouched_no_more(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"content")
    assert not images.is_untouched(path, "state")
    images.mark_untouched(path, "state")
    assert images.is_untouched(path, "state")
    assert not images.is_untouched(path, "another state")
    path.write_bytes(b"CONTENT")
    assert not images.is_untouched(path, "state")
    assert not images.is_untouched(tmp_path / "missing", "state")
