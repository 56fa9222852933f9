# SPDX-License-Identifier: GPL-3.0-or-later
"""A pytest plug-in: `pytest_plugins = ["ovirtlab.pytest"]` gives tests labs of their own that always end."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ovirtlab import teardown
from ovirtlab.starting import Wanted, start

LabFactory = Callable[..., dict[str, Any]]


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
