# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive an initramfs is, read by another program."""

import subprocess

from ovirtlab.machine.cpio import archive


def test_another_program_unpacks_it(tmp_path):
    files = {"init": b"#!/bin/sh\n", "lib/modules/a.ko": b"\x00" * 4097, "lib/empty": b""}
    subprocess.run(["busybox", "cpio", "-id"], input=archive(files), cwd=tmp_path, check=True, timeout=90)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755


def test_the_order_of_files_does_not_matter():
    assert archive({"a": b"1", "b": b"2"}) == archive({"b": b"2", "a": b"1"})
