# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of whole points: what is checked first, what is found, and what stays written down about it."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from overkeep.blocks.verify import Findings, verify_image
from overkeep.errors import OverkeepError
from overkeep.model.points import RestorePoint
from overkeep.repository import layout
from overkeep.repository.configuration import configuration_faults
from overkeep.repository.repository import Draft, Repository
from overkeep.repository.verification import Verification, Verifier, in_turn, last_verification, record
from overkeep.units import KIB, MIB

Backup = Callable[..., RestorePoint]


Images = Sequence[tuple[Path, str]]


def check(images: Images) -> list[Findings]:
    return [verify_image(folder, name) for folder, name in images]


def place(repository: Repository, point: RestorePoint, name: str = "") -> Path:
    return repository.root / layout.point(point.workload_id, point.vm_id, point.id) / name


def test_a_sound_point_is_found_sound_and_says_when(repository: Repository, backup: Backup) -> None:
    first = backup(0)
    second = backup(1, backing=first.images[0].file)
    assert last_verification(repository, second) is None
    before = dt.datetime.now(dt.UTC)
    result = Verifier(repository, check).verify(second)
    assert (result.sound, result.share, result.findings) == (True, 1.0, ())
    assert result.checked_at >= before
    assert last_verification(repository, second) == result
    assert last_verification(repository, first) is None
    assert repository.points("w1", "vm1") == (first, second)  # the manifest is as it was


def test_damage_is_told_for_every_point_that_suffers(repository: Repository, backup: Backup) -> None:
    first = backup(0)
    second = backup(1, backing=first.images[0].file)
    third = backup(2)
    image = repository.root / repository.folder(first, "disk1") / first.images[0].file
    with image.open("r+b") as file:
        file.seek(2 * 64 * KIB)
        file.write(os.urandom(512))
    verifier = Verifier(repository, check)
    results = {point.id: verifier.verify(point) for point in (second, first, third)}
    assert not results[first.id].sound
    assert results[second.id].findings == results[first.id].findings
    assert "Disk 'system': 1 clusters of" in results[first.id].findings[0]
    assert results[third.id].sound


def test_only_a_check_that_reads_everything_takes_damage_back(repository: Repository, backup: Backup) -> None:
    point = backup(0)

    def checked(*, read: int, damaged: int = 0) -> Verification:
        found = Findings(image=point.images[0].file, held=MIB, checked=read, damaged=damaged)
        return Verifier(repository, lambda _: [found]).verify(point)

    bad = checked(read=MIB, damaged=1)
    sampled = checked(read=MIB // 2)
    assert (bad.sound, sampled.sound, sampled.findings, sampled.share) == (False, False, bad.findings, 0.5)
    assert last_verification(repository, point) == sampled
    assert checked(read=MIB).sound


def test_an_image_of_several_points_is_read_once(repository: Repository, backup: Backup) -> None:
    first = backup(0)
    second = backup(1, backing=first.images[0].file)
    read: list[str] = []

    def counting(images: Images) -> list[Findings]:
        read.extend(name for _, name in images)
        return check(images)

    verifier = Verifier(repository, counting)
    for point in (second, first):
        assert verifier.verify(point).sound
    assert read == [second.images[0].file, first.images[0].file]


def test_a_missing_image_or_configuration_is_told(repository: Repository, backup: Backup) -> None:
    point = backup(0)
    place(repository, point, "vm.ovf").unlink()
    (repository.root / repository.folder(point, "disk1") / point.images[0].file).unlink()
    result = Verifier(repository, check).verify(point)
    assert not result.sound
    assert len(result.findings) == 2


def test_those_never_checked_come_first_then_the_oldest_checks(repository: Repository, backup: Backup) -> None:
    points = [backup(number) for number in range(4)]
    for number, day in ((0, 3), (2, 1)):
        when = dt.datetime(2026, 11, day, tzinfo=dt.UTC)
        record(repository, points[number], Verification(checked_at=when, share=1.0, sound=True))
    assert in_turn(repository, points) == [points[3], points[1], points[2], points[0]]


def test_a_damaged_record_counts_as_none(
    repository: Repository, backup: Backup, caplog: pytest.LogCaptureFixture
) -> None:
    point = backup(0)
    place(repository, point, "verification.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert last_verification(repository, point) is None
    assert "verification not read" in caplog.text
    assert Verifier(repository, check).verify(point).sound
    assert last_verification(repository, point) is not None


def test_a_point_for_which_there_was_no_time_counts_as_not_checked(repository: Repository, backup: Backup) -> None:
    point = backup(0)

    def late(images: Images) -> list[Findings]:
        return [Findings(image=name, held=MIB, reached=False) for _, name in images]

    result = Verifier(repository, late).verify(point)
    assert (result.sound, result.says, result.share, result.left) == (False, False, 0, 1)
    assert last_verification(repository, point) is None
    (repository.root / repository.folder(point, "disk1") / point.images[0].file).unlink()
    assert Verifier(repository, late).verify(point).says, "what is wrong is told also when there is no time for more"
    assert last_verification(repository, point) is not None


def test_a_check_of_some_images_is_one_of_a_share(repository: Repository, backup: Backup) -> None:
    first = backup(0)
    second = backup(1, backing=first.images[0].file)

    def some(images: Images) -> list[Findings]:
        found = [Findings(image=name, held=MIB, reached=False) for _, name in images]
        return [*check(images[:1]), *found[1:]]

    verifier = Verifier(repository, some)
    result = verifier.verify(second)
    assert (result.sound, result.share, result.left) == (True, 0.5, 1)
    assert last_verification(repository, second) == result
    assert verifier.verify(first).left == 0, "an image that was not reached is tried again"


OVF = '<Envelope xmlns:ovf="o" xmlns:xsi="x"><Content ovf:id="out"><Name>web</Name>{section}</Content></Envelope>'
SECTION = '<Section ovf:id="{vm}" ovf:required="false" xsi:type="ovf:OperatingSystemSection_Type"/>'
VM, OTHER = (f"{number:08x}-0000-4000-8000-000000000000" for number in (1, 2))


@pytest.fixture
def configured(repository: Repository, prepare: Callable[..., tuple[Draft, RestorePoint]]) -> Callable[..., str]:
    """What a check finds wrong with a point of such a configuration; without `seals` as one of an earlier writer."""

    def act(ovf: str, document: dict[str, object], *, seals: bool) -> str:
        draft, point = prepare(0, vm=VM)
        draft.write_configuration(ovf, document)
        draft.commit(point)
        if not seals:
            manifest = place(repository, point, "point.json")
            content = json.loads(manifest.read_text())
            del content["configuration"]
            manifest.write_text(json.dumps(content))
        return "\n".join(Verifier(repository, check).verify(point).findings)

    return act


@pytest.mark.parametrize("seals", [True, False])
@pytest.mark.parametrize(
    ("ovf", "document", "says"),
    [
        (OVF.format(section=SECTION.format(vm=VM)), {"version": 1, "vm": {"id": VM}}, ""),
        (OVF.format(section=""), {}, ""),
        (OVF.format(section=SECTION.format(vm="4")), {"vm": "of another shape"}, ""),
        ("<Envelope><Content>", {}, "vm.ovf is damaged: it is not well-formed XML"),
        ("", {}, "vm.ovf is damaged: it is not well-formed XML"),
        (OVF.format(section=SECTION.format(vm=OTHER)), {}, f"vm.ovf is damaged: it is of VM {OTHER!r}"),
        (OVF.format(section=""), {"vm": {"id": OTHER}}, f"vm.json is damaged: it is of VM {OTHER!r}"),
    ],
)
def test_a_configuration_must_be_readable_and_of_the_vm(
    configured: Callable[..., str], ovf: str, document: dict[str, object], says: str, *, seals: bool
) -> None:
    found = configured(ovf, document, seals=seals)
    assert (says in found) if says else not found


@pytest.mark.parametrize("name", ["vm.ovf", "vm.json"])
def test_every_bit_of_a_configuration_counts(repository: Repository, backup: Backup, name: str) -> None:
    point = backup(0)
    path, rng = place(repository, point, name), random.Random(9)
    whole = path.read_bytes()
    for at, bit in turned(rng, whole, 1000):
        path.write_bytes(flipped(whole, at, bit))
        assert list(configuration_faults(repository, point)), (at, bit)
    path.write_bytes(b"")
    assert not Verifier(repository, check).verify(point).sound
    path.write_bytes(whole)
    assert Verifier(repository, check).verify(point).sound


def turned(rng: random.Random, whole: bytes, count: int) -> Iterator[tuple[int, int]]:
    for _ in range(count):
        yield rng.randrange(len(whole)), 1 << rng.randrange(8)


def flipped(whole: bytes, at: int, bit: int) -> bytes:
    return whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]


def test_bits_that_turn_over_in_a_manifest_are_found_where_they_matter(repository: Repository, backup: Backup) -> None:
    point = backup(0)
    path, rng = place(repository, point, "point.json"), random.Random(8)
    whole = path.read_bytes()
    for at, bit in turned(rng, whole, 1000):
        path.write_bytes(flipped(whole, at, bit))
        try:
            read = repository.point("w1", "vm1", point.id)
        except OverkeepError:
            continue  # such a point is listed as damaged
        list(configuration_faults(repository, read))  # whatever the manifest says of it, nothing crashes
        mattered = ("disk_id", "file", "virtual_size")
        differs = any(getattr(read.images[0], name) != getattr(point.images[0], name) for name in mattered)
        assert not (differs and Verifier(repository, check).verify(read).sound), (at, bit)
    path.write_bytes(whole)
    assert Verifier(repository, check).verify(point).sound
    assert point.images[0].virtual_size == 4 * MIB
