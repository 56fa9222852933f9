# SPDX-License-Identifier: GPL-3.0-or-later
"""Between which times the events of each thousand numbers lie: so a list within two times reads few others.

Events are numbered in the order in which they are written, and listed in that order. Their times are in it only nearly:
clocks are set back, and those of two controllers differ. What is known of a block of numbers stays true: no event is
written among others later, and those that are forgotten only leave it too wide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from overkeep.controller.store import schema as t

BLOCK = 1000  # numbers
EVERYWHERE = range(2**63 - 1)
_NEAR = 4  # blocks between two others that are read through rather than asked about apart
_E, _S = t.event.c, t.event_span.c
_BLOCK_OF = _E.seq // BLOCK
_KNOWN_UP_TO = sa.select(sa.func.coalesce(sa.func.max(_S.block) + 1, 0)).scalar_subquery()
_LAST = sa.select(sa.func.max(_E.seq)).scalar_subquery()
_FULL = (
    sa.select(_BLOCK_OF, sa.func.min(_E.time), sa.func.max(_E.time))
    .where(_E.seq >= _KNOWN_UP_TO * BLOCK, _E.seq < _LAST // BLOCK * BLOCK)
    .group_by(_BLOCK_OF)
)
_NOTE = {  # two that write events may note the same at once
    dialect: insert(t.event_span).from_select(["block", "low", "high"], _FULL).on_conflict_do_nothing()
    for dialect, insert in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
}
_MATCHING = sa.select(_S.block).where(
    (_S.high >= sa.bindparam("since")), (_S.low < sa.bindparam("until")) | (sa.bindparam("until") == "")
)
_BLOCKS = sa.union_all(_MATCHING, sa.select(_KNOWN_UP_TO)).order_by("block")


def note(connection: sa.Connection) -> None:
    """Write down the times of all blocks that are full and not known yet."""
    connection.execute(_NOTE[connection.dialect.name])


def forget(connection: sa.Connection, last: int) -> None:
    """Drop what is known of blocks of which all events up to the number `last` are gone."""
    connection.execute(sa.delete(t.event_span).where(_S.block < last // BLOCK))


def within(connection: sa.Connection, since: str, until: str) -> list[range]:
    """The numbers among which are all events from `since` on and before `until`, by rising numbers; empty is any time.

    Of blocks that are not known all numbers are meant, to the end.
    """
    *known, rest = connection.scalars(_BLOCKS, {"since": since, "until": until})
    return list(_joined([*(range(block * BLOCK, (block + 1) * BLOCK) for block in known), _from(rest)]))


def after(ranges: Iterable[range], seq: int | None, *, newest: bool) -> Iterator[range]:
    """What is left of numbers after `seq` in an order, in that order."""
    ordered = list(ranges)[::-1] if newest else ranges
    for each in ordered:
        first, stop = each.start, each.stop
        if seq is not None:
            first, stop = (first, min(stop, seq)) if newest else (max(first, seq + 1), stop)
        if first < stop:
            yield range(first, stop)


def _from(block: int) -> range:
    return range(block * BLOCK, EVERYWHERE.stop)


def _joined(ranges: Iterable[range]) -> Iterator[range]:
    """The same with those joined that lie close together; they rise."""
    current: range | None = None
    for each in ranges:
        if current is None or each.start > current.stop + _NEAR * BLOCK:
            if current is not None:
                yield current
            current = each
        else:
            current = range(current.start, each.stop)
    if current is not None:
        yield current
