# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from overkeep.blocks.errors import TargetMissing
from overkeep.repository import documents, layout
from overkeep.repository.errors import DocumentDamaged, UnsafePath

DEEP = PurePosixPath("workloads/w1/vms/vm1")


def test_folders_are_made_with_those_above_them(tmp_path: Path) -> None:
    for _ in range(2):
        assert layout.make_folders(tmp_path, DEEP) == tmp_path / DEEP
    assert (tmp_path / DEEP).is_dir()


@pytest.mark.parametrize("name", ["workloads", "workloads/w1", "workloads/w1/vms", "workloads/w1/vms/vm1"])
def test_nothing_is_made_or_found_behind_a_link(tmp_path: Path, name: str) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / name).parent.mkdir(parents=True)
    (root / name).symlink_to(elsewhere)
    for act in (layout.make_folders, layout.located):
        with pytest.raises(UnsafePath):
            act(root, DEEP)
    assert list(elsewhere.iterdir()) == []


def test_the_root_itself_may_be_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    layout.make_folders(tmp_path / "root", DEEP)
    assert (tmp_path / "real" / DEEP).is_dir()
    assert layout.located(tmp_path / "root", DEEP) == tmp_path / "root" / DEEP


def test_a_root_that_is_away_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(TargetMissing):
        layout.make_folders(tmp_path / "away", DEEP)
    assert not (tmp_path / "away").exists()


def test_a_document_is_read_whole_and_one_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    for size in (0, 1, 70_000, 16 << 20):
        path.write_bytes(b"x" * size)
        assert documents.read_bytes(path) == b"x" * size
    path.write_bytes(b"x" * ((16 << 20) + 1))
    with pytest.raises(DocumentDamaged, match="larger"):
        documents.read_bytes(path)
