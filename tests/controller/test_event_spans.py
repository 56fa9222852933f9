"""Lists of events within two times, whatever clocks did while they were written, are those of a plain filter."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from overkeep.controller.events import Draft, Event, Filter, Kind, Level
from overkeep.controller.store import Store, event_spans, schema
from overkeep.controller.store.database import open_database

COUNT = 12_300
KINDS = (Kind.VM_PHASE, Kind.VM_PHASE, Kind.VM_STARTED, Kind.TARGET_HIGH)
DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

Clock = Callable[[int, random.Random], float]


def steady(number: int, _: random.Random) -> float:
    return number


def two_controllers(number: int, dice: random.Random) -> float:
    return number + 40 * dice.randint(0, 1)


def set_back(number: int, _: random.Random) -> float:
    return number if number < 7000 else number - 4000


def set_forth_for_a_while(number: int, _: random.Random) -> float:
    return number + (10_000_000 if 2500 <= number < 2510 else 0)


def mad(_: int, dice: random.Random) -> float:
    return dice.randint(0, COUNT)


CLOCKS = {clock.__name__: clock for clock in (steady, two_controllers, set_back, set_forth_for_a_while, mad)}


def stamp(seconds: float) -> str:
    return (DAY + dt.timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    store = Store(database)
    yield store
    store.close()


def row(number: int, time: str, dice: random.Random) -> dict[str, Any]:
    empty = dict.fromkeys(("job_id", "vm_id", "vm_name", "point_id", "target", "host", "caller"), "")
    told = {"kind": dice.choice(KINDS), "level": dice.choice([Level.INFO, Level.INFO, Level.ERROR]), "text": "t"}
    return {**empty, **told, "time": time, "workload_id": f"w{number % 3}", "fields": "{}", "key": None}


def fill(store: Store, clock: Clock) -> list[Event]:
    """Write events by a clock; a last one is written as all are, and blocks are noted with it."""
    dice = random.Random(7)
    rows = [row(number, stamp(clock(number, dice)), dice) for number in range(COUNT)]
    with store._engine.begin() as connection:
        connection.execute(sa.insert(schema.event), rows)
    tell(store)
    return list(store.events.after(0, limit=COUNT + 1000))


def tell(store: Store) -> None:
    store.events.add(*[Draft(kind=Kind.JOB_NOTE, text="n")] * 250)


def is_wanted(wanted: Filter, one: Event) -> bool:
    return (
        (not wanted.kind or one.kind == wanted.kind or one.kind.startswith(f"{wanted.kind}."))
        and one.level in wanted.level.and_worse
        and wanted.workload_id in ("", one.about.workload_id)
        and one.time >= wanted.since
        and (not wanted.until or one.time < wanted.until)
    )


FILTERS = (
    Filter(),
    Filter(kind="vm.started"),
    Filter(kind="vm"),
    Filter(kind="vm", level=Level.WARNING),
    Filter(level=Level.ERROR),
    Filter(workload_id="w1"),
)
TIMES = (
    ("", stamp(5000)),
    (stamp(5000), ""),
    (stamp(2990), stamp(3010)),
    (stamp(4000), stamp(9000)),
    (stamp(9_000_000), ""),
    ("", stamp(0)),
    (stamp(9000), stamp(4000)),
)


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS.keys())
def test_within_times(store: Store, clock: Clock) -> None:
    everything = fill(store, clock)
    for since, until in TIMES:
        for asked in FILTERS:
            wanted = Filter(kind=asked.kind, level=asked.level, workload_id=asked.workload_id, since=since, until=until)
            expected = [one for one in everything if is_wanted(wanted, one)]
            for limit in (1, 97, 1500):
                assert list(store.events.after(0, wanted, limit=limit)) == expected[:limit]
                assert list(store.events.before(None, wanted, limit=limit)) == expected[::-1][:limit]
            seq = everything[COUNT // 2].seq
            later = [one for one in expected if one.seq > seq]
            earlier = [one for one in expected[::-1] if one.seq < seq]
            assert list(store.events.after(seq, wanted, limit=50)) == later[:50]
            assert list(store.events.before(seq, wanted, limit=50)) == earlier[:50]


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS.keys())
def test_events_before_a_time_are_forgotten(store: Store, clock: Clock) -> None:
    everything = fill(store, clock)
    last = max(one.seq for one in everything if one.time < stamp(5000))
    store.events.forget(before=DAY + dt.timedelta(seconds=5000), keep=COUNT * 2)
    assert list(store.events.after(0, limit=COUNT + 1000)) == [one for one in everything if one.seq > last]
    with store._engine.connect() as connection:
        blocks = connection.scalars(sa.select(schema.event_span.c.block)).all()
    assert min(blocks, default=last) >= last // event_spans.BLOCK


def ranges(store: Store, since: str, until: str) -> Sequence[range]:
    with store._engine.connect() as connection:
        return event_spans.within(connection, since, until)


def test_few_others_are_read(store: Store) -> None:
    """Also when a clock was far ahead for a while."""
    fill(store, set_forth_for_a_while)
    ahead, end = range(2000, 3000), event_spans.EVERYWHERE.stop
    assert ranges(store, stamp(9_000_000), "") == [ahead, range(12_000, end)]
    assert ranges(store, stamp(1500), stamp(1600)) == [range(1000, 2000), range(12_000, end)]
    assert ranges(store, stamp(8500), stamp(8600)) == [ahead, range(8000, end)], "those nearby are joined"
    assert ranges(store, "", stamp(1500)) == [range(2000), range(12_000, end)]


def test_blocks_are_noted_by_whoever_writes(store: Store, database: str) -> None:
    other = Store(database)
    for number in range(12):
        tell(other if number % 3 else store)
    other.close()
    with store._engine.connect() as connection:
        assert connection.scalars(sa.select(schema.event_span.c.block)).all() in ([0, 1, 2], [0, 1])
    assert len(ranges(store, "2000", "")) == 1


def test_a_data_base_of_the_version_before_gets_the_times_of_its_events(database: str) -> None:
    store = Store(database)
    everything = fill(store, steady)
    noted = ranges(store, stamp(5500), stamp(5600))
    new = indexes(store._engine)
    with store._engine.begin() as connection:
        for statement in (
            "DROP TABLE event_span",
            *(f"DROP INDEX {name}" for name in ("event_bad_of_kind", "event_of_whole_job", "event_of_whole_workload")),
            *(["DROP STATISTICS event_kind_targets"] if store._engine.dialect.name == "postgresql" else []),
            "CREATE INDEX ix_event_time ON event (time)",
            "UPDATE schema_version SET version = 18",
        ):
            connection.exec_driver_sql(statement)
    store.close()
    Store(database).close()
    engine = open_database(database)
    assert indexes(engine) == new
    with engine.connect() as connection:
        assert event_spans.within(connection, stamp(5500), stamp(5600)) == noted
    engine.dispose()
    again = Store(database)
    assert list(again.events.after(0, limit=COUNT + 1000)) == everything
    tell(again)
    again.close()


def indexes(engine: sa.Engine) -> set[str | None]:
    found = sa.inspect(engine)
    return {index["name"] for table in schema.metadata.tables for index in found.get_indexes(table)}
