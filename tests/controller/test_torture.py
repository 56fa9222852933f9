# SPDX-License-Identifier: GPL-3.0-or-later
"""`kill -9` at random instants: every job ends, nothing stays locked, no point is lost, each leftover is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.controller.site import Site
from tests.controller.torture import torture
from tests.postgres import Postgres

pytestmark = pytest.mark.xdist_group("controllers")

KILLS = int(os.environ.get("OVERKEEP_KILLS", "200"))

FEW = pytest.param(6, id="few", marks=pytest.mark.timeout(600))
MANY = pytest.param(KILLS, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(4 * 3600)])


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_a_controller_is_killed_at_any_instant(tmp_path: Path, kills: int) -> None:
    with Site(tmp_path, f"sqlite:///{tmp_path / 'controller.sqlite'}") as site, torture(site) as victim:
        victim.run(kills)
        assert victim.deaths == kills


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_either_of_two_controllers_is_killed_or_sleeps(tmp_path: Path, postgres: Postgres, kills: int) -> None:
    with Site(tmp_path, postgres.new_database()) as site, torture(site) as victim:
        victim.run(kills)
        assert victim.deaths + victim.sleeps == kills
