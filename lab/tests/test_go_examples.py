# SPDX-License-Identifier: GPL-3.0-or-later
"""The example programs of the Go SDK against an engine on memory hosts; each has an engine of its own.

`OVIRTLAB_GO_SDK` names a checkout of github.com/oVirt/go-ovirt; Debian's `golang-go` and
`golang-github-satori-go.uuid-dev` build it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.tests.go_examples.build import build
from lab.tests.go_examples.table import EXAMPLES, LEFT_OUT
from lab.tests.sdk_examples.table import Example
from lab.tests.sdk_examples.world import World, inhabited


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with inhabited(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def source() -> Path:
    """The checkout of the SDK."""
    named = os.environ.get("OVIRTLAB_GO_SDK")
    if not named or not shutil.which("go"):
        pytest.skip("needs Go, and OVIRTLAB_GO_SDK, a checkout of github.com/oVirt/go-ovirt")
    return Path(named)


@pytest.fixture(scope="module")
def program(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, tmp_path_factory.mktemp("go"), [example.program for example in EXAMPLES])


@pytest.mark.timeout(900)  # the first test waits for the compiler
@pytest.mark.xdist_group("go_examples")  # which is to run once
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.program)
def test_example(world: World, program: Path, example: Example) -> None:
    example.before(world)
    address = {"OVIRT_URL": f"{world.lab.url}/ovirt-engine/api", "OVIRT_PASSWORD": "secret"}
    world.run([str(program), example.program], example, **address)
    assert "Panics occurs" not in world.said
    assert example.holds(world), world.said


def test_every_example_is_named(source: Path) -> None:
    """Each program is run, or left out for a reason that is written down."""
    known = [example.program for example in EXAMPLES] + list(LEFT_OUT)
    assert len(known) == len(set(known))
    assert {path.name for path in (source / "examples").glob("*.go")} == set(known)
