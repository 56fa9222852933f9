# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk that is written, resized, backed up in every way and restored, at random, against a model in memory."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.digesting import make_digests
from overkeep.blocks.digests import digests_of, sums_name
from overkeep.blocks.expected import ChainDigests
from overkeep.blocks.extents import Status
from overkeep.blocks.memory import MemoryDisk
from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.model.points import Changes
from overkeep.mover.copy_terms import Options, Place
from overkeep.mover.disk_copies import differing, restore
from overkeep.units import KIB, MIB
from tests.mover.bench import tool
from tests.mover.shelf import FORMS, Shelf

LONGEST = 12  # points of one run
TABLES = 6  # clusters of an image besides its data: header, L1, L2, refcounts and their table, and one to spare

sizes = st.one_of(
    st.sampled_from([512, CLUSTER, MIB, MIB + 512, 2 * MIB, 16 * MIB, 16 * MIB + CLUSTER + 512]),
    st.integers(1, 3 * MIB // 512).map(lambda sectors: sectors * 512),
)
places = st.integers(0, (1 << 24) - 1)  # a share of the disk
lengths = st.sampled_from([1, 511, 4096, CLUSTER, CLUSTER + 1, 3 * CLUSTER, 300 * KIB, MIB])


class Guest(MemoryDisk):
    """A disk that tells zeroes only where it was never written, or discarded whole clusters."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._holes = set(range(-(-size // CLUSTER)))
        self.written = 0

    def write(self, offset: int, data: memoryview) -> None:
        super().write(offset, data)
        self.written += len(data)
        self._holes.difference_update(range(offset // CLUSTER, -(-(offset + len(data)) // CLUSTER)))

    def zero(self, offset: int, length: int) -> None:
        super().zero(offset, length)
        self.written += length
        end = offset + length
        last = -(-end // CLUSTER) if end == self.size else end // CLUSTER
        self._holes.update(range(-(-offset // CLUSTER), last))

    def resize(self, size: int) -> None:
        """Cut the disk off, or let zeroes follow; neither counts as a change."""
        before = -(-self.size // CLUSTER)
        if size < self.size:
            del self.content[size:]
        else:
            self.content.extend(bytes(size - self.size))
        after = -(-size // CLUSTER)
        self._holes = {hole for hole in self._holes if hole < after} | set(range(before, after))

    def _statuses(self, *, dirty: bool) -> Iterator[Status]:
        for at in range(0, self.size, CLUSTER):
            cluster = at // CLUSTER
            changed = not dirty or cluster in (self._dirty or ())
            yield Status(min(CLUSTER, self.size - at), changed, cluster in self._holes)

    def changed(self) -> set[int]:
        """Numbers of the clusters that changed since the last point."""
        return {cluster for cluster in self._dirty or () if cluster * CLUSTER < self.size}


class Machine(RuleBasedStateMachine):
    """`points` are the contents that the disk had at each point."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="overkeep-machine-"))
        self.shelf = Shelf(self.folder)
        self.points: list[bytes] = []
        self.disk = Guest(MIB)
        self.traceable = False  # whether what changed since the last point is known

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(size=sizes)
    def begin(self, size: int) -> None:
        self.disk = Guest(size)

    # the guest

    def _range(self, place: int, length: int) -> tuple[int, int]:
        start = place * self.disk.size >> 24
        return start, min(length, self.disk.size - start)

    @rule(place=places, length=lengths, pattern=st.integers(0, 255))
    def write(self, place: int, length: int, pattern: int) -> None:
        start, count = self._range(place, length)
        self.disk.write(start, memoryview(bytes([pattern]) * count))

    @rule(place=places, length=lengths, seed=st.integers(0, 1 << 16))
    def write_noise(self, place: int, length: int, seed: int) -> None:
        start, count = self._range(place, length)
        self.disk.write(start, memoryview(random.Random(seed).randbytes(count)))

    @rule(length=lengths, seed=st.integers(0, 1 << 16))
    def write_to_the_end(self, length: int, seed: int) -> None:
        count = min(length, self.disk.size)
        self.disk.write(self.disk.size - count, memoryview(random.Random(seed).randbytes(count)))

    @rule(place=places, length=lengths)
    def write_the_same(self, place: int, length: int) -> None:
        start, count = self._range(place, length)
        self.disk.write(start, memoryview(bytes(self.disk.content[start : start + count])))

    @rule(place=places, length=lengths)
    def discard(self, place: int, length: int) -> None:
        self.disk.zero(*self._range(place, length))

    @rule(sectors=st.integers(-200, 200))
    def resize_a_little(self, sectors: int) -> None:
        self.resize(max(512, self.disk.size + sectors * 512))

    @rule(size=sizes)
    def resize(self, size: int) -> None:
        known = (self.points and len(self.points[-1])) or 0
        if self.disk.size < known and size > self.disk.size:
            self.traceable = False  # what was cut off is zeroes now, and nobody tracked that
        self.disk.resize(size)

    # backups

    @precondition(lambda self: len(self.points) < LONGEST)
    @rule(form=st.sampled_from(sorted(FORMS)), read_back=st.sampled_from([0.0, 0.3, 1.0]), look=st.booleans())
    def back_up_in_full(self, form: str, read_back: float, look: bool) -> None:
        self._back_up(Changes.ALL, form, read_back, look=look)

    @precondition(lambda self: self.traceable and len(self.points) < LONGEST)
    @rule(form=st.sampled_from(sorted(FORMS)), look=st.booleans())
    def back_up_what_was_tracked(self, form: str, look: bool) -> None:
        self._back_up(Changes.TRACKED, form, 0.0, look=look)

    @precondition(lambda self: self.points and len(self.points) < LONGEST)
    @rule(form=st.sampled_from(sorted(FORMS)), read_back=st.sampled_from([0.0, 1.0]), look=st.booleans())
    def back_up_compared(self, form: str, read_back: float, look: bool) -> None:
        self._back_up(Changes.COMPARED, form, read_back, look=look)

    @precondition(lambda self: len(self.points) < LONGEST - 1)
    @rule(
        form=st.sampled_from(sorted(FORMS)),
        sectors=st.integers(1, 300),
        changes=st.sampled_from([Changes.TRACKED, Changes.COMPARED]),
    )
    def back_up_around_a_cut(self, form: str, sectors: int, changes: Changes) -> None:
        """Nothing but the cut between two points: its last cluster must be kept all the same."""
        self._back_up(Changes.ALL, form, 0.0, look=False)
        self.resize_a_little(-sectors)
        self._back_up(changes, form, 0.0, look=False)

    def _back_up(self, changes: Changes, form: str, read_back: float, *, look: bool) -> None:
        most = self._clusters_to_keep(changes, FORMS[form].cluster)
        result = self.shelf.back_up(self.disk, changes, form=FORMS[form], read_back=read_back)
        assert result.stored == self.shelf.stored()
        if FORMS[form].compression is None:
            assert result.stored <= (most + TABLES) * FORMS[form].cluster
        self.points.append(bytes(self.disk.content))
        self.disk.mark()
        self.traceable = True
        self._check_all()
        if look:
            self._ask_qemu()

    def _clusters_to_keep(self, changes: Changes, cluster: int) -> int:
        """How many clusters of the image may hold data."""
        if changes is Changes.TRACKED:
            differ = {number * CLUSTER // cluster for number in self.disk.changed()} | {self.disk.size // cluster}
        else:
            last = self.points[-1] if changes is Changes.COMPARED else b""
            differ = {at // cluster for at in range(0, self.disk.size, CLUSTER) if self._differs(last, at)}
        return len(differ)

    def _differs(self, last: bytes, at: int) -> bool:
        before = last[at : at + CLUSTER].ljust(CLUSTER, b"\0")
        return before != bytes(self.disk.content[at : at + CLUSTER]).ljust(CLUSTER, b"\0")

    def _check_all(self) -> None:
        for number, content in enumerate(self.points, 1):
            with closing(ChainReader(self.folder, f"p{number}.qcow2")) as chain:
                found = bytearray(chain.size)
                chain.read_into(0, memoryview(found))
            assert bytes(found) == content
            with closing(ChainDigests(self.folder, f"p{number}.qcow2")) as digests:
                made = digests.range(0, -(-len(content) // CLUSTER)).tobytes()
            assert made == digests_of(memoryview(content))

    def _ask_qemu(self) -> None:
        image, raw = self.folder / self.shelf.newest, self.folder / "raw"
        tool("qemu-img", "check", "-q", image)
        tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)
        assert raw.read_bytes() == self.points[-1]

    # what happens to points

    @precondition(lambda self: self.points)
    @rule(which=st.integers(0, LONGEST), again=st.booleans())
    def lose_digests(self, which: int, again: bool) -> None:
        name = f"p{which % len(self.points) + 1}.qcow2"
        (self.folder / sums_name(name)).unlink(missing_ok=True)
        if again:
            make_digests(self.folder, name)

    # restores

    @precondition(lambda self: self.points)
    @rule(which=st.integers(0, LONGEST), more=st.sampled_from([0, 512, CLUSTER]), differential=st.booleans())
    def restore(self, which: int, more: int, differential: bool) -> None:
        number = which % len(self.points)
        content, watch = self.points[number], self.shelf.watch
        place = Place(folder=self.folder, name=f"p{number + 1}.qcow2")
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


def test_the_block_plane_at_random() -> None:
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=25, stateful_step_count=25, derandomize=True, **QUIET)
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_block_plane_at_random_for_longer() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=300, stateful_step_count=50, **QUIET))
