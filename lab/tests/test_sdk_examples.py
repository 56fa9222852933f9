# SPDX-License-Identifier: GPL-3.0-or-later
"""The SDK's own example programs, as they are, against an engine on memory hosts; each has an engine of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.tests.sdk_examples import launch
from lab.tests.sdk_examples.table import ELSEWHERE, EXAMPLES, LEFT_OUT, Example
from lab.tests.sdk_examples.world import World, inhabited

ROOT = Path(__file__).parents[2]
LAUNCHER = Path(launch.__file__)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with inhabited(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def examples() -> Path:
    """The folder of the examples; `make setup` fetches them."""
    found = sorted(ROOT.glob(".cache/sdk-examples-*/list_vms.py"))
    if not found:
        pytest.skip("the SDK's example programs are not here: run `make setup`")
    return found[-1].parent


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.program)
def test_example(world: World, examples: Path, example: Example) -> None:
    example.before(world)
    arguments = [word.format(**world.values()) for word in example.arguments]
    address = [f"{world.lab.url}/ovirt-engine/api", "admin@internal", "secret"]
    command = [sys.executable, "-u", str(LAUNCHER), *address, str(examples / example.program), *arguments]
    world.run(command, example)
    assert example.holds(world), world.said


def test_every_example_is_named(examples: Path) -> None:
    """Each program is run here or elsewhere, or left out for a reason that is written down."""
    known = [example.program for example in EXAMPLES] + list(ELSEWHERE) + list(LEFT_OUT)
    assert len(known) == len(set(known))
    assert {path.name for path in examples.glob("*.py")} == set(known)
