# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run costs, and rows of results: medians of runs that were made in turn."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")

Act = Callable[[], object]


@dataclass(frozen=True)
class Task:
    """What is measured, and what is done before each run without being measured."""

    act: Act
    prepare: Act = lambda: None


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and of processors: of this process, its children and the servers involved."""

    wall: float
    processor: float


def cost(act: Act, servers: Collection[int] = ()) -> Cost:
    """Run `act`; `servers` are the pids of processes that work for it."""
    os.sync()
    before, began = _processor(servers), time.monotonic()
    act()
    return Cost(time.monotonic() - began, _processor(servers) - before)


def _processor(servers: Collection[int]) -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used) + sum(_of(pid) for pid in servers)


def _of(pid: int) -> float:
    words = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICK


@dataclass(frozen=True)
class Pairs:
    """Costs of runs that were made in turn: ours, theirs, theirs, ours, and so on."""

    ours: list[Cost]
    theirs: list[Cost]

    def median(self, whose: str, measure: str) -> float:
        """The median of our or their `wall` or `processor`."""
        return float(statistics.median(getattr(each, measure) for each in getattr(self, whose)))

    def times_better(self, measure: str) -> float:
        """The median over the pairs of how many times less we took."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return float(statistics.median(getattr(their, measure) / getattr(our, measure) for our, their in pairs))


def in_turn(
    ours: Task,
    theirs: Task,
    *,
    rounds: int,
    before: Act = lambda: None,
    servers: Callable[[], Collection[int]] = tuple,
) -> Pairs:
    """Run both `rounds` times, every other time in the other order: what comes second finds the disk busy.

    `before` is done before each run, and `servers` asked then whose processors count as well.
    """
    pairs = Pairs([], [])
    for number in range(rounds):
        for whose, task in ((pairs.ours, ours), (pairs.theirs, theirs))[:: -1 if number % 2 else 1]:
            before()
            task.prepare()
            whose.append(cost(task.act, servers()))
    return pairs


def median_stages(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Where the time of a run goes: the median of each stage over all `runs`; one that a run has not took no time."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: float(statistics.median(run.get(name, 0.0) for run in runs)) for name in names}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; `ratio` is how many times better we are, `required` how many times we must be.

    `notes` of the data path are seconds of all our threads by stage, each the median of the runs.
    """

    name: str
    against: str
    ours: float
    theirs: float | None
    unit: str = "s"
    ratio: float | None = None
    required: float | None = None
    holds: bool
    notes: dict[str, object] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """The row as it is written to the file of results."""
        return asdict(self)


def wall_row(name: str, against: str, pairs: Pairs, required: float, **notes: object) -> Row:
    """A row about the time on the clock."""
    return _row(name, against, pairs, "wall", required, notes)


def processor_row(name: str, against: str, pairs: Pairs, required: float, **notes: object) -> Row:
    """A row about the time of processors."""
    return _row(f"{name}, CPU", against, pairs, "processor", required, notes)


def _row(name: str, against: str, pairs: Pairs, measure: str, required: float, notes: dict[str, object]) -> Row:
    ratio = pairs.times_better(measure)
    return Row(
        name=name,
        against=against,
        ours=pairs.median("ours", measure),
        theirs=pairs.median("theirs", measure),
        unit="s" if measure == "wall" else "CPU s",
        ratio=ratio,
        required=required,
        holds=ratio >= required,
        notes=notes,
    )


def limit_row(name: str, against: str, value: float, limit: float, unit: str) -> Row:
    """A row about a figure that must not be exceeded; its ratio is how far below the limit it is."""
    return Row(
        name=name,
        against=against,
        ours=value,
        theirs=limit,
        unit=unit,
        ratio=limit / value if value else None,
        required=1.0,
        holds=value <= limit,
    )
