# SPDX-License-Identifier: GPL-3.0-or-later
"""A pytest plug-in: `pytest_plugins = ["ovirtlab.pytest"]` gives tests labs of their own that always end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ovirtlab import environment as environments
from ovirtlab import teardown
from ovirtlab.engine_only import EngineLab, served
from ovirtlab.faults.client import Faults
from ovirtlab.starting import Wanted, start

LabFactory = Callable[..., dict[str, Any]]
EngineFactory = Callable[..., EngineLab]
FaultsOf = Callable[[Mapping[str, Any]], Faults]


@pytest.fixture(scope="session")
def ovirtlab_factory() -> Iterator[LabFactory]:
    """Start labs: `factory(environment=Path(...), hosts=2, vms=3)` returns what is in `lab.json`.

    The directory of each is a short one below the system's folder for temporary files, as the paths of unix sockets
    may have 107 bytes only. All labs are ended with the session, whatever happened in it.
    """
    with ExitStack() as stack:

        def factory(**wanted: Any) -> dict[str, Any]:
            directory = Path(tempfile.mkdtemp(prefix="ovl-"))
            stack.callback(teardown.tear_down, directory)
            return start(directory, Wanted(**wanted), say=lambda _: None)

        yield factory


@pytest.fixture
def ovirtlab_faults() -> Iterator[FaultsOf]:
    """Break labs: `ovirtlab_faults(lab).do("host-kill", host="host1")`; all is mended when the test ends."""
    with ExitStack() as stack:

        def faults_of(lab: Mapping[str, Any]) -> Faults:
            faults = Faults.of(lab)
            stack.callback(faults.clear)
            return faults

        yield faults_of


@pytest.fixture(scope="session")
def ovirtlab_engine_factory() -> Iterator[EngineFactory]:
    """Start engines on hosts in memory: `factory(environment=Path(...))`; for tests that need no bytes of disks.

    Without an environment it is the default one, with its clock at twenty times the speed. They end with the session.
    """
    with ExitStack() as stack:

        def factory(*, environment: Path | None = None) -> EngineLab:
            chosen = environments.load(environment) if environment else None
            return stack.enter_context(served(chosen))

        yield factory


@pytest.fixture
def ovirtlab_engine() -> Iterator[EngineLab]:
    """A fresh engine on hosts in memory for one test, with `url`, `username`, `password` and `faults`."""
    with served() as lab:
        yield lab
