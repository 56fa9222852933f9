# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that is written, resized, backed up, merged and restored at random, against a model in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digesting import make_digests
from overkeep.blocks.digests import sums_name
from overkeep.blocks.expected import ChainDigests
from overkeep.blocks.merge import comparing, extend, making, sums
from overkeep.blocks.merge.folder import header_of
from overkeep.blocks.qcow2 import held, view
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.blocks.verify import verify_image
from overkeep.errors import Cancelled
from overkeep.model.points import Changes
from overkeep.mover.copy_terms import Options, Place
from overkeep.mover.disk_copies import differing, restore
from overkeep.units import KIB, MIB
from tests.blocks.guest import Act, Guest, Kind, Resize
from tests.mover.bench import tool
from tests.mover.shelf import FORMS, Impatient, Shelf

LONGEST = 12  # points of one run
TABLES = 6  # clusters of an image besides its data: header, L1, L2, refcounts and their table, and one to spare


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What happens to the disk, and how it is backed up then; `look` is whether QEMU looks at the result."""

    acts: list[Act | Resize]
    changes: Changes
    form: str
    read_back: float = 0.0
    look: bool = False


sizes = st.one_of(
    st.sampled_from([512, CLUSTER, MIB, MIB + 512, 2 * MIB, 4 * MIB + CLUSTER, 16 * MIB + CLUSTER + 512]),
    st.integers(1, 3 * MIB // 512).map(lambda sectors: sectors * 512),
)
places = st.integers(0, (1 << 24) - 1)  # a share of the disk
lengths = st.sampled_from([1, 511, 4096, CLUSTER, CLUSTER + 1, 3 * CLUSTER, 300 * KIB, MIB])


acts = st.lists(
    st.one_of(
        st.builds(Act, st.sampled_from(Kind), places, lengths, st.integers(0, 1 << 16)),
        st.builds(Resize, sizes),
        st.builds(Resize, by=st.integers(-200, 200)),
    ),
    min_size=1,
    max_size=6,
)
backups = st.builds(
    Backup,
    acts=acts,
    changes=st.sampled_from([Changes.TRACKED, Changes.COMPARED, Changes.TRACKED, Changes.ALL]),
    form=st.sampled_from(sorted(FORMS)),
    read_back=st.sampled_from([0.0, 0.3, 1.0]),
    look=st.booleans(),
)
which = st.integers(0, LONGEST)  # one of the points that there are

FOREIGN = (
    "cluster_size=4k",
    "cluster_size=64k",
    "cluster_size=2M",
    "extended_l2=on,cluster_size=128k",
    "extended_l2=on,cluster_size=2M",
    "compat=0.10",
)
"""How other tools write images."""


class Machine(RuleBasedStateMachine):
    """`points` are the contents that the disk had at each point, oldest first, by the names of their images."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="overkeep-machine-"))
        self.shelf = Shelf(self.folder)
        self.points: dict[str, bytes] = {}
        self.disk = Guest(MIB)
        self.traceable = False  # whether what changed since the last point is known
        self.untold: set[str] = set()  # images that hold clusters without a digest
        self.ended: set[str] = set()  # images that a merge which was stopped has left

    def _named(self, number: int) -> str:
        return list(self.points)[number % len(self.points)]

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(size=sizes, past=st.lists(backups, min_size=2, max_size=5))
    def begin(self, size: int, past: list[Backup]) -> None:
        self.disk = Guest(size)
        for backup in past:
            self.back_up(backup)

    # the guest

    @rule(acts=acts)
    def work(self, acts: list[Act | Resize]) -> None:
        for act in acts:
            if isinstance(act, Resize):
                self._resize(act.of(self.disk.size))
            else:
                self.disk.do(act)

    def _resize(self, size: int) -> None:
        known = len(self.points[self.shelf.newest]) if self.points else 0
        if self.disk.size < known and size > self.disk.size:
            self.traceable = False  # what was cut off is zeroes now, and nobody tracked that
        self.disk.resize(size)

    # backups

    @precondition(lambda self: len(self.points) < LONGEST)
    @rule(backup=backups)
    def back_up(self, backup: Backup) -> None:
        self.work(backup.acts)
        changes = backup.changes
        if not self.points:
            changes = Changes.ALL
        elif changes is Changes.TRACKED and not self.traceable:
            changes = Changes.COMPARED
        self._back_up(changes, backup.form, backup.read_back)
        if backup.look:
            self._ask_qemu([self.shelf.newest])

    @precondition(lambda self: len(self.points) < LONGEST - 1)
    @rule(
        form=st.sampled_from(sorted(FORMS)),
        sectors=st.integers(1, 300),
        changes=st.sampled_from([Changes.TRACKED, Changes.COMPARED]),
    )
    def back_up_around_a_cut(self, form: str, sectors: int, changes: Changes) -> None:
        """Nothing but the cut between two points: its last cluster must be kept all the same."""
        self._back_up(Changes.ALL, form)
        self.work([Resize(by=-sectors)])
        self._back_up(changes, form)

    def _back_up(self, changes: Changes, form: str, read_back: float = 0.0) -> None:
        most = self._clusters_to_keep(changes, FORMS[form].cluster)
        result = self.shelf.back_up(self.disk, changes, form=FORMS[form], read_back=read_back)
        assert result.stored == self.shelf.stored()
        if FORMS[form].compression is None:
            assert result.stored <= (most + TABLES) * FORMS[form].cluster
        self.points[self.shelf.newest] = bytes(self.disk.content)
        self.disk.mark()
        self.traceable = True
        self._check([self.shelf.newest])

    def _clusters_to_keep(self, changes: Changes, cluster: int) -> int:
        """How many clusters of the image may hold data."""
        if changes is Changes.TRACKED:
            differ = {number * CLUSTER // cluster for number in self.disk.changed()} | {self.disk.size // cluster}
        else:
            last = self.points[self.shelf.newest] if changes is Changes.COMPARED else b""
            differ = {at // cluster for at in range(0, self.disk.size, CLUSTER) if self._differs(last, at)}
        return len(differ)

    def _differs(self, last: bytes, at: int) -> bool:
        before = last[at : at + CLUSTER].ljust(CLUSTER, b"\0")
        return before != bytes(self.disk.content[at : at + CLUSTER]).ljust(CLUSTER, b"\0")

    # what must hold

    def _check(self, names: Iterable[str]) -> None:
        for name in names:
            with closing(ChainReader(self.folder, name)) as chain:
                found = bytearray(chain.size)
                chain.read_into(0, memoryview(found))
            assert found == self.points[name], name
            with closing(ChainDigests(self.folder, name)) as digests:
                made = digests.range(0, -(-len(found) // CLUSTER)).tobytes()
            assert made == digests.hashing.of(memoryview(found)), name

    def _ask_qemu(self, names: Iterable[str]) -> None:
        raw = self.folder / "raw"
        for name in names:
            raw.write_bytes(self.points[name])
            tool("qemu-img", "check", "-q", self.folder / name)
            tool("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, self.folder / name)
        raw.unlink(missing_ok=True)

    def _verify(self) -> None:
        for name in self.points.keys() - self.untold:
            found = verify_image(self.folder, name)
            assert found.sound, found

    # what happens to points

    @precondition(lambda self: len(self.points) > 2)
    @rule(ends=st.sets(which, min_size=1, max_size=4), patience=st.one_of(st.just(1 << 30), st.integers(0, 60)))
    def merge(self, ends: set[int], patience: int) -> None:
        """Let points end, some at the head of a chain and some within; the merge may be stopped and left like that."""
        names = {self._named(number) for number in ends}
        if self.shelf.newest in names:
            self.traceable = False
        self.ended |= names
        self.points = {name: content for name, content in self.points.items() if name not in names}
        merged = {name for name in self.points if header_of(self.folder, name).backing in self.ended}
        try:
            self.shelf.merge(*sorted(self.ended), watch=Impatient(patience))
        except Cancelled:
            self._check(self.points)
            return
        self.ended = set()
        self.untold = (self.untold - merged) & set(self.points)
        self._check(self.points)
        self._verify()
        self._ask_qemu(self.points)
        assert {path.name for path in self.folder.glob("*.qcow2")} == set(self.points)

    @precondition(lambda self: self.points)
    @rule(which=which, again=st.booleans())
    def lose_digests(self, which: int, again: bool) -> None:
        name = self._named(which)
        (self.folder / sums_name(name)).unlink(missing_ok=True)
        self.untold.add(name)
        if again and not self.ended:
            make_digests(self.folder, name)
            self.untold.discard(name)

    @precondition(lambda self: self.points and not self.ended)
    @rule(which=which, options=st.sampled_from(FOREIGN), compress=st.booleans())
    def let_another_tool_write_it(self, which: int, options: str, compress: bool) -> None:
        name = self._named(which)
        backing = header_of(self.folder, name).backing
        flags = (["-c"] if compress else []) + (["-F", "qcow2", "-B", backing] if backing else [])
        made = self.folder / "made"
        tool("qemu-img", "convert", "-O", "qcow2", "-o", options, *flags, self.folder / name, made)
        made.replace(self.folder / name)
        self.untold.add(name)
        self._check(self.points)

    # restores

    @precondition(lambda self: self.points)
    @rule(which=which, more=st.sampled_from([0, 512, CLUSTER]), differential=st.booleans())
    def restore(self, which: int, more: int, differential: bool) -> None:
        name = self._named(which)
        content, watch = self.points[name], self.shelf.watch
        place = Place(folder=self.folder, name=name)
        present = Guest(len(content) + more)
        kept = min(present.size, self.disk.size)
        present.write(0, memoryview(bytes(self.disk.content[:kept])))
        rest, present.written = bytes(present.content[len(content) :]), 0
        only = differing(place, present, options=Options(), watch=watch) if differential else None
        before = bytes(present.content)
        result = restore(place, present, only=only, options=Options(), watch=watch)
        assert bytes(present.content) == content + rest
        assert present.written == result.covered
        if differential:
            expected = [
                at
                for at in range(0, len(content), CLUSTER)
                if content[at : at + CLUSTER] != before[at : min(at + CLUSTER, len(content))]
            ]
            assert result.covered == sum(min(CLUSTER, len(content) - at) for at in expected)


QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a merge of a small disk take several steps, as that of a large one does."""
    for module in (comparing, extend, held, making, sums, view):
        monkeypatch.setattr(module, "STRETCH", 4 * MIB)
    monkeypatch.setattr(sums, "_CLUSTERS", 4 * MIB // CLUSTER)
    monkeypatch.setattr(extend, "BATCH", 256 * KIB)


def test_the_block_plane_at_random() -> None:
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=30, stateful_step_count=15, derandomize=True, **QUIET)
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_block_plane_at_random_for_longer() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=200, stateful_step_count=40, **QUIET))
