# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of whole points: what is checked first, what is found, and what stays written down about it."""

from __future__ import annotations

import datetime as dt
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from overkeep.blocks.verify import ALL, Findings, Sample, verify_image
from overkeep.errors import OverkeepError
from overkeep.model.points import RestorePoint
from overkeep.repository import layout
from overkeep.repository.repository import Repository
from overkeep.repository.verification import Verification, Verifier, in_turn, last_verification, record
from overkeep.units import KIB, MIB

Backup = Callable[..., RestorePoint]


def check(folder: Path, name: str, sample: Sample) -> Findings:
    return verify_image(folder, name, sample=sample)


def place(repository: Repository, point: RestorePoint, name: str = "") -> Path:
    return repository.root / layout.point(point.workload_id, point.vm_id, point.id) / name


def test_a_sound_point_is_found_sound_and_says_when(repository: Repository, backup: Backup) -> None:
    first = backup(0)
    second = backup(1, backing=first.images[0].file)
    assert last_verification(repository, second) is None
    before = dt.datetime.now(dt.UTC)
    result = Verifier(repository, check).verify(second, ALL)
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
    results = {point.id: verifier.verify(point, ALL) for point in (second, first, third)}
    assert not results[first.id].sound
    assert results[second.id].findings == results[first.id].findings
    assert "Disk 'system': 1 clusters of" in results[first.id].findings[0]
    assert results[third.id].sound


def test_only_a_check_that_reads_everything_takes_damage_back(repository: Repository, backup: Backup) -> None:
    point = backup(0)

    def checked(*, read: int, damaged: int = 0) -> Verification:
        found = Findings(image=point.images[0].file, held=MIB, checked=read, damaged=damaged)
        return Verifier(repository, lambda *_: found).verify(point, ALL)

    bad = checked(read=MIB, damaged=1)
    sampled = checked(read=MIB // 2)
    assert (bad.sound, sampled.sound, sampled.findings, sampled.share) == (False, False, bad.findings, 0.5)
    assert last_verification(repository, point) == sampled
    assert checked(read=MIB).sound


def test_an_image_of_several_points_is_read_once(repository: Repository, backup: Backup) -> None:
    first = backup(0)
    second = backup(1, backing=first.images[0].file)
    read: list[str] = []

    def counting(folder: Path, name: str, sample: Sample) -> Findings:
        read.append(name)
        return check(folder, name, sample)

    verifier = Verifier(repository, counting)
    for point in (second, first):
        assert verifier.verify(point, ALL).sound
    assert read == [second.images[0].file, first.images[0].file]


def test_a_missing_image_or_configuration_is_told(repository: Repository, backup: Backup) -> None:
    point = backup(0)
    place(repository, point, "vm.ovf").unlink()
    (repository.root / repository.folder(point, "disk1") / point.images[0].file).unlink()
    result = Verifier(repository, check).verify(point, ALL)
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
    assert Verifier(repository, check).verify(point, Sample(share=0.5)).sound
    assert last_verification(repository, point) is not None


def test_bits_that_turn_over_in_a_manifest_are_found_where_they_matter(repository: Repository, backup: Backup) -> None:
    point = backup(0)
    path, rng = place(repository, point, "point.json"), random.Random(8)
    whole = path.read_bytes()
    for _ in range(200):
        at, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        try:
            read = repository.point("w1", "vm1", point.id)
        except OverkeepError:
            continue  # such a point is listed as damaged
        mattered = ("disk_id", "file", "virtual_size")
        differs = any(getattr(read.images[0], name) != getattr(point.images[0], name) for name in mattered)
        assert not (differs and Verifier(repository, check).verify(read, ALL).sound), (at, bit)
    path.write_bytes(whole)
    assert Verifier(repository, check).verify(point, ALL).sound
    assert point.images[0].virtual_size == 4 * MIB
