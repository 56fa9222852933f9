# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab and one deployment of the product for all whole-system tests, driven by their commands alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.deployment import Deployment, Lab, NoTarget, deployed
from tests.system.manager import Manager

HERE = Path(__file__).parent


@contextmanager
def short_directory() -> Iterator[Path]:
    """A short path: the sockets of QEMU and ovirt-imageio lie below it, and a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="okt-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


@contextmanager
def running_lab(directory: Path, environment: str) -> Iterator[Lab]:
    """A lab made from an environment that lies beside this file; tests skip where it can have no backup target."""
    lab = Lab(directory)
    try:
        try:
            lab.up("--environment", str(HERE / environment))
        except NoTarget as missing:
            pytest.skip(f"no backup target: {missing}")
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="session")
def lab_directory() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def lab(lab_directory: Path) -> Iterator[Lab]:
    """A lab with VMs that have no guest, one for each kind of test, so that tests do not wait for one another."""
    with running_lab(lab_directory / "lab", "lab.yaml") as lab:
        yield lab


@pytest.fixture(scope="session")
def product(lab: Lab, lab_directory: Path) -> Iterator[Deployment]:
    """The product's services in that lab."""
    with deployed(lab, lab_directory / "product") as deployment:
        yield deployment


@pytest.fixture(scope="session")
def manager(lab: Lab) -> Manager:
    """The Manager, asked directly."""
    return Manager(lab)
