# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository with real, small images."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from overkeep.blocks.image import ImageSink
from overkeep.model.inventory import DiskFormat
from overkeep.model.points import DiskImage, Mode, RestorePoint, point_id
from overkeep.repository.repository import Draft, Repository
from overkeep.units import MIB

Backup = Callable[..., RestorePoint]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty repository."""
    root = tmp_path / "target"
    root.mkdir()
    return Repository(root).create()


def write_image(draft: Draft, disk_id: str, *, backing: str | None = None, size: int = 4 * MIB) -> None:
    """Write the image of a draft as a mover does."""
    folder, name = draft.image_folder(disk_id), draft.image_name
    with closing(ImageSink(folder, name, size=size, backing=backing)) as sink:
        sink.write(0, memoryview(os.urandom(MIB)))
        sink.finish()


def describe(draft: Draft, created: dt.datetime, *, backing: str | None = None, size: int = 4 * MIB) -> RestorePoint:
    """The point that a draft with an image of `disk1` should become."""
    mode = Mode.INCREMENTAL if backing else Mode.FULL
    image = DiskImage(
        disk_id="disk1",
        name="system",
        file=draft.image_name,
        backing=backing,
        mode=mode,
        reason="test",
        virtual_size=size,
        stored=2 * MIB,
        covered=MIB,
        moved=MIB,
        format=DiskFormat.COW,
        interface="virtio_scsi",
        bootable=True,
    )
    return RestorePoint(
        id=draft.point_id,
        workload_id=draft.workload_id,
        vm_id=draft.vm_id,
        vm_name="web",
        created=created,
        job_id=draft.job_id,
        mode=mode,
        checkpoint_id="c1",
        images=(image,),
    )


@pytest.fixture
def prepare(repository: Repository) -> Callable[..., tuple[Draft, RestorePoint]]:
    """Begin a draft, write everything, and return it with the point to commit."""

    def act(
        number: int = 0, *, backing: str | None = None, vm: str = "vm1", size: int = 4 * MIB
    ) -> tuple[Draft, RestorePoint]:
        created = dt.datetime(2026, 11, 22, 22, number, tzinfo=dt.UTC)
        job = f"job{number}-{vm}"
        draft = repository.begin("w1", vm, point_id=point_id(created, job), job_id=job)
        draft.write_configuration("<ovf/>", {"number": number})
        write_image(draft, "disk1", backing=backing, size=size)
        return draft, describe(draft, created, backing=backing, size=size)

    return act


@pytest.fixture
def backup(prepare: Callable[..., tuple[Draft, RestorePoint]]) -> Backup:
    """Commit a point."""

    def act(number: int = 0, **options: object) -> RestorePoint:
        draft, point = prepare(number, **options)
        return draft.commit(point)

    return act


@pytest.fixture
def changed() -> Callable[..., RestorePoint]:
    """A point whose image differs in some fields."""

    def act(point: RestorePoint, **fields: object) -> RestorePoint:
        return replace(point, images=(replace(point.images[0], **fields),))

    return act
