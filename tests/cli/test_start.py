# SPDX-License-Identifier: GPL-3.0-or-later
"""The start of the command line, which each command pays for."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("heavy", ["sqlalchemy", "dbos", "fastapi", "numpy"])
def test_it_loads_nothing_of_the_services(heavy: str) -> None:
    """What they need takes longer to load than the command itself."""
    look = f"import sys, overkeep.cli.main; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False, timeout=60).returncode == 0
