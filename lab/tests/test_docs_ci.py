# SPDX-License-Identifier: GPL-3.0-or-later
"""What `docs/ci.md` tells other projects works: a project is made of its blocks, and its tests are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).parents[1]
GUIDE = LAB / "docs" / "ci.md"
PACKAGES = LAB.parent / "setup" / "debian-packages.txt"
NAMED = re.compile(r"^```\w+\n(?P<text># (?P<name>[\w.]+).*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the files of the guide, and nothing of this repository."""
    for block in NAMED.finditer(GUIDE.read_text()):
        (tmp_path / block["name"]).write_text(block["text"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"conftest.py", "my_client.py", "test_my_client.py", "lab.yaml"}
    return tmp_path


def pytest_in(project: Path, *arguments: str) -> str:
    """What pytest says of a project of its own; it must have passed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"rootdir: {project}" in done.stdout
    return done.stdout


def test_an_engine_on_hosts_in_memory(project: Path) -> None:
    assert "1 passed, 1 deselected" in pytest_in(project, "-k", "busy_engine")


@pytest.mark.lab
@pytest.mark.usefixtures("needs_isolation")
def test_a_whole_lab_without_guests(project: Path) -> None:
    assert "1 passed, 1 deselected" in pytest_in(project, "-k", "vm_die")


def test_a_client_that_is_wrong_fails(project: Path) -> None:
    """The example tests something: without its second attempt the client does not pass."""
    client = project / "my_client.py"
    client.write_text(client.read_text().replace("attempts=5", "attempts=1"))
    with pytest.raises(AssertionError, match="503 Service Unavailable"):
        pytest_in(project, "-k", "busy_engine")


def test_the_packages_it_names_are_those_of_setup() -> None:
    named = re.findall(r"^apt-get install --no-install-recommends (.+)$", GUIDE.read_text(), re.MULTILINE)
    wanted = {line for line in PACKAGES.read_text().splitlines() if line and not line.startswith("#")}
    assert len(named) == 4
    assert set(" ".join(named).split()) <= wanted
