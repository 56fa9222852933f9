# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job on live guests, as `make demo` runs it."""

from __future__ import annotations

import os
import sys

import pytest

from demo.deployment import run

pytestmark = [pytest.mark.lab, pytest.mark.guest, pytest.mark.xdist_group("guests"), pytest.mark.timeout(600)]


def test_the_demo_holds_all_its_checks() -> None:
    if os.geteuid() != 0:
        pytest.skip("the demo needs an NFS server, and that needs root")
    finished = run([sys.executable, "-m", "demo"], timeout=570)
    assert "Everything is as it must be" in finished.text
