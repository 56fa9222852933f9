# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands about targets, against a controller with two of them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import pytest

from overkeep.cli import exits
from overkeep.controller.background.catalogue import Catalogue
from overkeep.repository.identity import create_identity, read_identity
from overkeep.testing.mover import fine
from tests.cli.conftest import Site


def test_a_workload_is_given_another_target(site: Site) -> None:
    assert site("workload", "create", "demo", "--vm", "web", "--target", "nfs2")[1].endswith("backed up to nfs2.\n")
    assert site("backup", "demo")[0] == 0
    status, out, _ = site("workload", "set-target", "demo", "nfs1")
    assert status == 0
    assert "backed up to nfs1; its next backup is a full one" in out
    assert "1 restore points stay on nfs2" in out
    assert site("backup", "demo")[0] == 0
    status, out, _ = site("points", "--json")
    assert [(point["target"], point["mode"]) for point in json.loads(out)] == [("nfs2", "full"), ("nfs1", "full")]
    assert "backed up to nfs1" in site("workload", "show", "demo")[1]
    assert site("workload", "set-target", "demo", "nfs9")[0] == exits.NOT_FOUND
    assert "no target 'nfs9'" in site("workload", "create", "other", "--vm", "db", "--target", "nfs9")[2]


def test_a_target_that_is_away_is_named_and_the_status_tells(site: Site) -> None:
    root = site.world.root("nfs2")
    site("workload", "create", "demo", "--vm", "web")
    site("backup", "demo")
    assert site("targets")[0] == 0
    shutil.rmtree(root)
    status, out, err = site("points", "--json")
    assert (status, len(json.loads(out))) == (1, 1)
    assert "Target nfs2 cannot be read now: its points are shown as they were last seen" in err
    status, out, _ = site("targets")
    assert status == 1
    assert "target-folder-missing" in out
    assert site("points", "--target", "nfs1")[0] == 0
    assert site("target", "show", "nfs2")[0] == 1
    assert site("point", "pin", "20260101T000000Z-12345678", "--reason", "x")[2].count("nfs2 cannot be read now") == 1


def test_a_target_is_tried_out_from_everywhere(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overkeep.model.probes.OWNER", (os.getuid(), os.getgid()))
    site.world.mover.probed = lambda *asked: dataclasses.replace(fine(*asked), owner=(os.getuid(), os.getgid()))
    status, out, _ = site("target", "probe", "nfs1", "--size", "1", "--seconds", "1")
    assert status == 0
    here, there = (line.split() for line in out.splitlines()[1:])
    assert here[:2] == ["controller", "ok"]
    assert there[:2] == ["host1", "ok"]
    assert "300 MiB/s" in out
    shown = site("target", "show", "nfs1")[1]
    assert "Tried out" in shown
    assert "300 MiB/s" in shown
    status, out, _ = site("target", "probe", "nfs1", "--host", "host1", "--json")
    assert [probe["host"] for probe in json.loads(out)] == ["host1"]
    site.world.mover.probed = fine
    status, out, _ = site("target", "probe", "nfs1", "--host", "host1")
    assert status == (0 if os.getuid() == 36 else 1)
    assert os.getuid() == 36 or "Files must belong to 36:36" in out
    site.world.mover.reachable = False
    status, out, _ = site("target", "probe", "nfs1", "--size", "1", "--seconds", "1")
    assert (status, "mover-unreachable" in out) == (1, True)
    assert site("target", "probe", "nfs9")[0] == exits.NOT_FOUND


def test_another_repository_is_accepted_only_by_who_has_seen_it(site: Site) -> None:
    root = site.world.root("nfs1")
    held = read_identity(root).id
    assert site("targets")[0] == 0
    (root / "overkeep.json").unlink()
    found = create_identity(root).id
    status, out, _ = site("target", "show", "nfs1")
    assert status == 1
    assert f"Repository: {held}" in out
    assert f"There now: {found}" in out
    status, out, _ = site("target", "accept", "nfs1", "--yes")
    assert (status, found in out) == (0, True)
    assert site("target", "show", "nfs1")[0] == 0


def test_a_target_is_rescanned(site: Site) -> None:
    site("workload", "create", "demo", "--vm", "web")
    site("backup", "demo")
    site.world.store.points.remove_target("nfs1")
    assert json.loads(site("points", "--json")[1]) == []
    catalogue = Catalogue(site.world.ports)
    catalogue.start()
    try:
        status, out, _ = site("target", "rescan", "nfs1")
        assert (status, out.startswith("Points: last read whole")) == (0, True)
        assert len(json.loads(site("points", "--json")[1])) == 1
        assert "Points: last read whole" in site("target", "show", "nfs1")[1]
        hidden = site.world.root("nfs1").rename(site.world.folder / "hidden")
        status, out, _ = site("target", "rescan", "nfs1")
        assert (status, "they cannot be read now" in out) == (exits.FAILED, True)
        assert len(json.loads(site("points", "--json")[1])) == 1
        hidden.rename(site.world.root("nfs1"))
        assert site("target", "rescan", "nfs1", "--no-wait")[0] == 0
        assert site("target", "rescan", "nfs9")[0] == exits.NOT_FOUND
    finally:
        catalogue.stop()
