# SPDX-License-Identifier: GPL-3.0-or-later
"""The pytest plug-in: its fixture gives a lab and takes it away, also when a test fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovirtlab import teardown

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_isolation")]
TESTS = """
import pathlib

def test_one(ovirtlab_factory):
    lab = ovirtlab_factory(environment=pathlib.Path("lab.yaml"), vms=1)
    pathlib.Path("where").write_text(str(pathlib.Path(lab["ca_file"]).parent.parent))
    assert [vm["name"] for vm in lab["vms"]] == ["plain1"]
    assert False, "a test that fails must not keep the lab"
"""

pytest_plugins = ["pytester"]


def test_the_fixture_starts_a_lab_and_ends_it(pytester: pytest.Pytester):
    pytester.makepyfile(TESTS)
    pytester.path.joinpath("lab.yaml").write_text("hosts: [{name: h1}]\n")
    result = pytester.runpytest_subprocess("-p", "ovirtlab.pytest", timeout=60)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*a test that fails must not keep the lab*"])
    directory = Path(pytester.path.joinpath("where").read_text())
    assert not directory.exists()
    assert teardown.leftovers(directory) == []
