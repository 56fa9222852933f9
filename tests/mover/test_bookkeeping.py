# SPDX-License-Identifier: GPL-3.0-or-later
"""Merges and checks ordered over HTTPS, on images that were backed up from real disks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overkeep.blocks.errors import TargetFailed
from overkeep.blocks.merge import acts
from overkeep.config import MoverConfig
from overkeep.mover.orders import MergeOrder, MergeResult, OrderState, Progress, VerifyOrder, VerifyResult
from overkeep.mover.work import Work
from overkeep.units import KIB, MIB
from tests.mover.bench import FOLDER, SIZE, Bench, assert_same, settings_for, tool, write

NAMES = ("p1.qcow2", "p2.qcow2", "p3.qcow2")


@pytest.fixture
def bench(settings: MoverConfig, target: Any, tickets: Any, serve: Callable[..., Any]) -> Bench:
    _, client = serve(settings_for(settings, (target.config,), tickets))
    return Bench(client, target, tickets)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", path, SIZE)
    write(path, "write -P 0x11 0 3M")
    return path


@pytest.fixture
def chain(bench: Bench, disk: Path, nbd: Any) -> Path:
    """Three points of a disk, compared; the disk as it is at the last one."""
    bench.done(bench.backup(nbd(disk), NAMES[0]), "j:d:1")
    for number in (1, 2):
        nbd.stop()
        write(disk, f"write -P {number} {number}M 128k", f"write -z {number * 1024 + 512}k 64k")
        order = bench.backup(nbd(disk), NAMES[number], backing=NAMES[number - 1], compare=True)
        bench.done(order, f"j:d:{number + 1}")
    return disk


def where(bench: Bench) -> dict[str, str]:
    return {"host": "host1", "target": "nfs1", "repository": bench.target.repository, "folder": FOLDER}


def merge(bench: Bench, *names: str) -> MergeOrder:
    return MergeOrder(**where(bench), remove=names)


def test_images_in_the_middle_and_at_the_bottom_go(bench: Bench, chain: Path) -> None:
    status = bench.done(merge(bench, "p2.qcow2"), "m:d:1")
    assert isinstance(status.result, MergeResult)
    assert status.result.removed == ("p2.qcow2",)
    assert set(status.result.stages) == {"source", "digest", "tables", "target", "read_back"}
    assert bench.files() == ["p1.qcow2", "p1.sums", "p3.qcow2", "p3.sums"]
    assert_same(chain, bench.folder / "p3.qcow2")
    bench.done(merge(bench, "p1.qcow2"), "m:d:2")
    assert bench.files() == ["p3.qcow2", "p3.sums"]
    assert_same(chain, bench.folder / "p3.qcow2")
    found = bench.done(VerifyOrder(**where(bench), images=("p3.qcow2",)), "v:d:1").result
    assert isinstance(found, VerifyResult)
    assert not found.images[0].errors
    assert (found.images[0].damaged, found.images[0].undigested) == (0, 0)


def test_an_order_that_is_sent_again_is_done_again(bench: Bench, chain: Path) -> None:
    """What it names is gone then; and retention removes the last points, upon which nothing is built."""
    for number, names in enumerate((("p1.qcow2",), ("p3.qcow2",), ("p2.qcow2",))):
        results = [bench.done(merge(bench, *names), f"m{number}:d:{attempt}").result for attempt in (1, 2)]
        assert [result.removed for result in results if isinstance(result, MergeResult)] == [names, ()]
    assert bench.files() == []


def test_a_merge_that_is_not_as_its_digests_say_removes_nothing(bench: Bench, chain: Path) -> None:
    before = bench.files()
    for name in ("p1.qcow2", "p2.qcow2"):
        with (bench.folder / name).open("r+b") as file:
            file.seek(64 * KIB)
            file.write(os.urandom(KIB))
    status = bench.failed(merge(bench, "p1.qcow2"), "m:d:1")
    assert (status.error_code, status.retry) == ("merge-garbled", False)
    assert bench.files() == before


def test_an_image_whose_point_exists_stays(bench: Bench, chain: Path) -> None:
    manifest = bench.folder.parent.parent / "points" / "p2" / "point.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    status = bench.failed(merge(bench, "p1.qcow2", "p2.qcow2"), "m:d:1")
    assert status.error_code == "point-exists"
    assert len(bench.files()) == 6
    assert_same(chain, bench.folder / "p3.qcow2")


def test_a_merge_that_was_left_is_finished_by_any_order(
    bench: Bench, chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, run: object) -> None:
        raise TargetFailed(path=folder, reason="told to")

    monkeypatch.setattr(acts, "unlink_merged", fail)
    status = bench.failed(merge(bench, "p1.qcow2", "p2.qcow2"), "m:d:1")
    assert (status.error_code, status.retry) == ("target-failed", True)
    assert "merge.json" in bench.files()
    assert_same(chain, bench.folder / "p3.qcow2")
    monkeypatch.undo()
    bench.done(merge(bench), "m:d:2")
    assert bench.files() == ["p3.qcow2", "p3.sums"]
    assert_same(chain, bench.folder / "p3.qcow2")


def test_an_image_that_several_others_need_stays(bench: Bench, chain: Path) -> None:
    shutil.copy(bench.folder / "p2.qcow2", bench.folder / "other.qcow2")
    assert bench.failed(merge(bench, "p1.qcow2"), "m:d:1").error_code == "image-shared"
    assert len(bench.files()) == 7


def test_a_check_tells_what_is_damaged_and_where(bench: Bench, chain: Path) -> None:
    with (bench.folder / "p1.qcow2").open("r+b") as file:
        file.seek(2 * 64 * KIB)
        file.write(os.urandom(KIB))
    status = bench.done(VerifyOrder(**where(bench), images=NAMES), "v:d:1")
    assert isinstance(status.result, VerifyResult)
    assert [found.damaged for found in status.result.images] == [1, 0, 0]
    assert status.result.images[0].held >= 3 * MIB
    assert status.progress.done == sum(found.checked for found in status.result.images)


def test_a_check_tells_how_far_it_is(bench: Bench, chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Progress] = []
    monkeypatch.setattr(Work, "progress", lambda _, progress: told.append(progress))
    status = bench.done(VerifyOrder(**where(bench), images=NAMES), "v:d:1")
    assert isinstance(status.result, VerifyResult)
    held = sum(found.held for found in status.result.images)
    assert {one.total for one in told} == {held}
    passed = [one.done for one in told]
    assert (passed == sorted(passed), passed[-1], told[-1].moved) == (True, held, held)


def test_a_check_for_which_there_is_no_time_leaves_images_out(bench: Bench, chain: Path) -> None:
    status = bench.done(VerifyOrder(**where(bench), images=NAMES, seconds=1e-9), "v:d:1")
    assert isinstance(status.result, VerifyResult)
    assert status.result.images == ()


def test_a_target_that_is_another_repository_is_refused(bench: Bench, chain: Path) -> None:
    other = {**where(bench), "repository": "00000000-0000-0000-0000-000000000000"}
    orders = (MergeOrder(**other, remove=("p1.qcow2",)), VerifyOrder(**other, images=NAMES))
    for number, order in enumerate(orders):
        assert bench.failed(order, f"x:d:{number}").error_code == "repository-differs"
    assert len(bench.files()) == 6


def test_a_cancelled_merge_can_be_ordered_again(bench: Bench, chain: Path) -> None:
    bench.client.put("m:d:1", merge(bench, "p1.qcow2", "p2.qcow2"))
    assert bench.client.cancel("m:d:1").state in (OrderState.CANCELLED, OrderState.DONE)
    bench.done(merge(bench, "p1.qcow2", "p2.qcow2"), "m:d:2")
    assert bench.files() == ["p3.qcow2", "p3.sums"]
    assert_same(chain, bench.folder / "p3.qcow2")
