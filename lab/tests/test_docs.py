# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's documents say what its code says; `python -m ovirtlab.coverage lab/docs` brings them up to date."""

from __future__ import annotations

import shutil
from pathlib import Path

from ovirtlab import coverage
from ovirtlab.engine.app import GROUPS
from ovirtlab.faults.active import FAULTS

DOCS = Path(__file__).parents[1] / "docs"


def test_generated_parts_are_those_of_the_code():
    stale = [path.name for path in coverage.outdated(DOCS)]
    assert stale == [], "run `python -m ovirtlab.coverage lab/docs`"


def test_what_is_stale_is_found_and_made_anew(tmp_path: Path):
    shutil.copytree(DOCS, tmp_path / "docs")
    changed = tmp_path / "docs" / "faults.md"
    changed.write_text(changed.read_text().replace("`host-kill` |", "`host-kll` |"))
    assert changed in coverage.outdated(tmp_path / "docs")
    coverage.main([str(tmp_path / "docs")])
    assert coverage.outdated(tmp_path / "docs") == {}


def test_every_call_and_every_fault_is_told():
    calls, faults = coverage.calls(), coverage.faults()
    for group in GROUPS:
        for route in group.routes.all:
            assert f"`{route.method} {'/'.join(route.pattern) or '/'}`" in calls
    assert all(f"| `{name}` |" in faults for name in FAULTS)
