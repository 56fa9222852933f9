# SPDX-License-Identifier: GPL-3.0-or-later
"""One lab with two hosts for all tests of the collection, and its modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.tests.ansible_modules.collection import HOME, Modules, driver
from lab.tests.conftest import nothing_left, short_directory

from ovirtlab import teardown
from ovirtlab.starting import Wanted, start

ENVIRONMENT = """
hosts: [{name: alpha}, {name: beta}]
storage_domains: [{name: data}, {name: data2}]
time_scale: 10
users:
  - {name: joe@internal, password: secret, roles: [{role: UserVmManager, vm: plain}]}
groups: [{name: operators, roles: [{role: UserVmManager, vm: plain}]}]
vms:
  - {name: plain, host: alpha, disks: [{name: d1, size: 16 MiB}]}
  - {name: idle, running: false, disks: [{name: d2, size: 16 MiB}]}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them need the collection and a lab, and share one in one process."""
    marks = (pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(240), pytest.mark.xdist_group("ansible"))
    for item in items:
        if item.path.parent == Path(__file__).parent:
            for mark in marks:
                item.add_marker(mark)


@pytest.fixture(scope="session")
def facts(needs_isolation: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    if not (HOME / "stamp").exists():
        pytest.skip("the ovirt.ovirt collection is not here: run `setup/ansible-for-tests`")
    with short_directory() as directory:
        environment = tmp_path_factory.mktemp("environment") / "two.yaml"
        environment.write_text(ENVIRONMENT)
        yield start(directory, Wanted(environment=environment), say=lambda _: None)
        teardown.tear_down(directory)
        nothing_left(directory)


@pytest.fixture(scope="session")
def modules(facts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Modules]:
    with driver(facts, tmp_path_factory.mktemp("modules")) as running:
        yield running
