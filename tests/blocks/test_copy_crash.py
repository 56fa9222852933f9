# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups and restores that are stopped at any instant, or whose target fails; doing them again ends them."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from overkeep.blocks.digests import sums_name
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.rawfile import RawSink, RawSource
from overkeep.blocks.verify import verify_image
from overkeep.errors import OverkeepError
from overkeep.model.points import Changes
from overkeep.mover.copy_terms import Options, Place
from overkeep.mover.disk_copies import differing, restore
from overkeep.units import MIB
from tests.blocks.guest import Guest
from tests.blocks.killing import Victim, kill_in_time
from tests.blocks.merge.effects import Counter, Failing, Gate, Killer, Short, gated
from tests.filesystems.mounting import FailingTarget
from tests.forks import preload
from tests.mover.shelf import FORMS, Shelf, Watching, scribble

preload(__name__)
OLD, NEW, TARGET = "p1.qcow2", "p2.qcow2", "disk.raw"


@dataclass(frozen=True)
class BackUp:
    """The second point of a disk is made; the first is there, and must stay."""

    changes: Changes
    disk: Guest
    form: str

    def run(self, folder: Path) -> None:
        shelf = Shelf(folder, form=FORMS[self.form])
        shelf.names, shelf.count = [OLD], 1
        shelf.back_up(self.disk, self.changes)

    def check_half(self, folder: Path) -> None:
        """The new point is there, whole, or it is not."""
        if (folder / NEW).exists():
            self.check_whole(folder)

    def check_whole(self, folder: Path) -> None:
        assert content(folder, NEW) == self.disk.content
        assert verify_image(folder, NEW).sound
        found = {path.name for path in folder.iterdir() if not path.name.endswith(".partial")}
        assert found == {OLD, NEW, sums_name(OLD), sums_name(NEW)}

    def check_tidy(self, folder: Path) -> None:
        assert not [*folder.glob("*.partial")]


@dataclass(frozen=True)
class Restore:
    """A point is restored upon a disk that holds something else; `differential` writes what differs."""

    differential: bool
    expected: bytes

    def run(self, folder: Path) -> None:
        target, only = folder / TARGET, None
        place, watch = Place(folder=folder, name=OLD), Watching()
        if self.differential:
            with closing(RawSource(target)) as present:
                only = differing(place, present, options=Options(), watch=watch)
        with closing(RawSink(target)) as sink:
            restore(place, sink, only=only, options=Options(), watch=watch)

    def check_half(self, folder: Path) -> None:
        """What is restored is only a disk that nobody uses yet."""

    def check_whole(self, folder: Path) -> None:
        assert (folder / TARGET).read_bytes() == self.expected

    def check_tidy(self, folder: Path) -> None:
        assert {path.name for path in folder.iterdir()} == {OLD, sums_name(OLD), TARGET}


Work = BackUp | Restore


class Scene:
    """A folder with one point, of which copies are made, one for each crash, and what is done there."""

    def __init__(self, folder: Path, kind: str, seed: int) -> None:
        rng = random.Random(seed)
        self._folder, self._copies = folder, 0
        self._before = folder / "before"
        self._before.mkdir()
        disk, form = Guest(4 * MIB + 512), rng.choice(sorted(FORMS))
        scribble(disk, rng, 12)
        Shelf(self._before, form=FORMS[form]).back_up(disk, Changes.ALL)
        self.old = bytes(disk.content)
        disk.mark()
        scribble(disk, rng, 12)
        self.work: Work
        if kind in BACKUPS:
            self.work = BackUp(Changes(kind), disk, form)
        else:
            self.work = Restore(kind == "differential", self.old)
            (self._before / TARGET).write_bytes(disk.content)

    def fresh(self) -> Path:
        self._copies += 1
        return Path(shutil.copytree(self._before, self._folder / f"copy{self._copies}"))

    def settle(self, folder: Path) -> None:
        """What was there reads as before, what is new is whole or absent, and doing it again ends it."""
        assert content(folder, OLD) == self.old
        self.work.check_half(folder)
        self.work.run(folder)
        self.check(folder)

    def check(self, folder: Path) -> None:
        """All is done, and nothing is left over."""
        assert content(folder, OLD) == self.old
        self.work.check_whole(folder)
        self.work.check_tidy(folder)
        shutil.rmtree(folder)

    @contextmanager
    def attempt(self, gate: Gate) -> Iterator[Victim]:
        """A process that does it; what it leaves is looked at."""
        folder = self.fresh()
        yield Victim(do, folder, self.work, gate)
        self.settle(folder)

    def count_effects(self) -> int:
        """How many effects the whole work has."""
        counter, folder = Counter(), self.fresh()
        do(folder, self.work, counter)
        self.check(folder)
        return counter.count


def content(folder: Path, name: str) -> bytes:
    with closing(ChainReader(folder, name)) as chain:
        found = bytearray(chain.size)
        chain.read_into(0, memoryview(found))
    return bytes(found)


BACKUPS, RESTORES = [str(changes) for changes in Changes], ["whole", "differential"]
KINDS = [*BACKUPS, *RESTORES]


def do(folder: Path, work: Work, gate: Gate) -> None:
    """Do it behind a gate."""
    with gated(gate):
        work.run(folder)


# kill -9


def die(scene: Scene, gate: Killer) -> bool:
    """Let a process be killed where `gate` says; whether it was."""
    with scene.attempt(gate) as victim:
        return victim.die_by_itself()


def kill_at_random(scene: Scene, *, times: int) -> None:
    """Kill processes at random instants of their work."""
    kill_in_time(lambda: scene.attempt(Counter()), random.Random(), times=times)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_some_effects(tmp_path: Path, kind: str) -> None:
    scene = Scene(tmp_path, kind, 1)
    count = scene.count_effects()
    killed = [
        die(scene, Killer(at, after=bool(at % 2), half=at % 3 == 2)) for at in range(1, count + 1, count // 6 + 1)
    ]
    assert any(killed)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random(tmp_path: Path, kind: str) -> None:
    kill_at_random(Scene(tmp_path, kind, 2), times=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "times"), [(kind, 300 // len(k)) for k in (BACKUPS, RESTORES) for kind in k])
def test_killed_at_many_random_instants(tmp_path: Path, kind: str, times: int) -> None:
    """300 of backups, 300 of restores."""
    kill_at_random(Scene(tmp_path, kind, 3), times=times)


# a target that fails

ERRORS = (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EACCES, errno.EDQUOT)


def fail(scene: Scene, gate: Failing) -> None:
    """Let an effect fail: an error that the user understands, and nothing is lost."""
    folder = scene.fresh()
    with pytest.raises(OverkeepError):
        do(folder, scene.work, gate)
    scene.settle(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_an_effect_fails(tmp_path: Path, kind: str) -> None:
    scene = Scene(tmp_path, kind, 4)
    for number, at in enumerate(range(1, scene.count_effects() + 1, 3)):
        fail(scene, Failing(at, ERRORS[number % len(ERRORS)], lasting=bool(number % 2)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", ERRORS[:3], ids=errno.errorcode.get)
def test_every_effect_fails(tmp_path: Path, kind: str, number: int) -> None:
    scene = Scene(tmp_path, kind, 5)
    for at in range(1, scene.count_effects() + 1):
        fail(scene, Failing(at, number, lasting=bool(at % 2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_writes_are_short(tmp_path: Path, kind: str, seed: int) -> None:
    scene = Scene(tmp_path, kind, seed)
    folder = scene.fresh()
    do(folder, scene.work, Short(seed))
    scene.check(folder)


@contextmanager
def failing_reads(at: int, number: int, *, lasting: bool) -> Iterator[None]:
    """Let read number `at` fail, and `lasting` also all those after it."""
    real, count = os.preadv, 0

    def preadv(*args: Any) -> int:
        nonlocal count
        count += 1
        if count == at or (lasting and count > at):
            raise OSError(number, os.strerror(number))
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        yield


@pytest.mark.parametrize("kind", RESTORES)
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE], ids=errno.errorcode.get)
def test_reads_fail(tmp_path: Path, kind: str, number: int) -> None:
    """One that fails is tried again or told; all that fail are told."""
    scene = Scene(tmp_path, kind, 6)
    for at in range(1, 12):
        folder = scene.fresh()
        with failing_reads(at, number, lasting=True), pytest.raises(OverkeepError):
            scene.work.run(folder)
        scene.settle(folder)
        folder = scene.fresh()
        with failing_reads(at, number, lasting=False), suppress(OverkeepError):
            scene.work.run(folder)
            scene.work.check_whole(folder)
        scene.settle(folder)


# a file system that fails: what its calls return goes through the kernel


def fail_there(target: FailingTarget, scene: Scene, call: tuple[str, int], number: int) -> None:
    """Let a call to the file system fail: an error that the user understands, and nothing is lost."""
    folder = scene.fresh()
    target.fail(call, number, partial(scene.work.run, folder))
    scene.settle(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_to_a_file_system_fails(failing: FailingTarget, kind: str) -> None:
    scene = Scene(failing.root, kind, 7)
    calls = failing.calls(scene.fresh, scene.work.run)
    for number, call in enumerate(itertools.islice(calls, 0, None, 4)):
        fail_there(failing, scene, call, ERRORS[number % 3])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", ERRORS[:3], ids=errno.errorcode.get)
def test_every_call_to_a_file_system_fails(failing: FailingTarget, kind: str, number: int) -> None:
    scene = Scene(failing.root, kind, 8)
    for call in failing.calls(scene.fresh, scene.work.run):
        fail_there(failing, scene, call, number)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_a_file_system_moves_only_a_part(failing: FailingTarget, kind: str, seed: int) -> None:
    scene = Scene(failing.root, kind, seed)
    folder = scene.fresh()
    with failing.short():
        scene.work.run(folder)
    scene.check(folder)
