# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirt and a host of the lab for each module, each with a VM of its own for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from lab.tests.libvirt_conformance.sides import SIZE, SYSTEM_PYTHON, Libvirt, OurHost, Refused, Side

T = TypeVar("T")
DRIVER_LIBRARY = "libvirt/connection-driver/libvirt_driver_qemu.so"


@pytest.fixture(scope="session")
def needs_libvirt() -> None:
    """Skip where Debian's libvirt is not installed, or this is not root."""
    if os.geteuid() != 0:
        pytest.skip("libvirt in a process of its own needs root")
    found = any(Path("/usr/lib").glob(f"*/{DRIVER_LIBRARY}"))
    if not found or subprocess.run([SYSTEM_PYTHON, "-c", "import libvirt_qemu"], capture_output=True).returncode:
        pytest.skip("libvirt is not installed: run `make setup` (libvirt-daemon-driver-qemu, python3-libvirt)")


class Both:
    """libvirt and the lab's host, to be told the same."""

    def __init__(self, libvirt: Libvirt, ours: OurHost) -> None:
        self.libvirt = libvirt
        self.ours = ours

    def start(self, *disks: tuple[str, str]) -> None:
        """Start the VM on new, empty disks."""
        for side in (self.libvirt, self.ours):
            for target, form in disks:
                argv = ["qemu-img", "create", "-q", "-f", form, str(side.directory / f"{target}.{form}"), SIZE]
                subprocess.run(argv, check=True, timeout=90)
        self.restart(*disks)

    def restart(self, *disks: tuple[str, str]) -> None:
        """Start the VM on the disks it had."""
        for side in (self.libvirt, self.ours):
            side.start(disks)
        self.sent()

    def do(self, act: Callable[[Side], T]) -> tuple[T, T]:
        """Return what libvirt's answer is, and the lab's."""
        return act(self.libvirt), act(self.ours)

    def sent(self) -> tuple[list[Any], list[Any]]:
        """What both have sent to QEMU since the last call."""
        return self.libvirt.sent(), self.ours.sent()

    def codes(self, act: Callable[[Side], Any]) -> tuple[int, int]:
        """Both refuse; return their numbers."""
        codes = []
        for side in (self.libvirt, self.ours):
            with pytest.raises(Refused) as caught:
                act(side)
            codes.append(caught.value.code)
        return codes[0], codes[1]


@pytest.fixture(scope="module")
def libvirt(needs_libvirt: None) -> Iterator[Libvirt]:
    directory = Path(tempfile.mkdtemp(prefix="ovlv-"))
    try:
        with closing(Libvirt(directory)) as driver:
            yield driver
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def both(libvirt: Libvirt) -> Iterator[Both]:
    directory = Path(tempfile.mkdtemp(prefix="ovlo-"))
    try:
        with closing(OurHost(directory)) as ours:
            yield Both(libvirt, ours)
    finally:
        libvirt.power_off()
        for left in (*libvirt.directory.glob("*.scratch"), *libvirt.directory.glob("backup*")):
            left.unlink()
        shutil.rmtree(directory)
