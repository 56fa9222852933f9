# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening the data base, SQLite or PostgreSQL, and what differs between the two: reads, and doing something alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from overkeep.controller.store.idle import tried_when_idle
from overkeep.controller.store.schema import metadata, version
from overkeep.controller.store.upgrades import UPGRADES, VERSION
from overkeep.errors import OverkeepError

IDLE_IN_TRANSACTION = 15  # seconds after which PostgreSQL ends a transaction in which nothing happens

_SETTINGS = {
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION}s",
    # No statement of ours runs for as long as it takes to compile one, or to begin the processes that would share it.
    "jit": "off",
    "max_parallel_workers_per_gather": 0,
    # What is asked for most lies in memory. Else all jobs are read through where those of some VMs are wanted.
    "random_page_cost": 1.1,
}
_READS = "overkeep_reads"
_ALONE = sa.text("SELECT pg_advisory_xact_lock(hashtext(:act))")
_IS_ALONE = sa.text("SELECT pg_try_advisory_xact_lock(hashtext(:act))")


class SchemaTooNew(OverkeepError):
    """The data base was written by a later version."""

    code = "schema-too-new"
    template = "The data base has schema {found}, this controller knows up to {known}; install the newer controller."


def open_database(url: str) -> sa.Engine:
    """Connect to `url` and bring its schema up to date; raise `SchemaTooNew` when it is ahead of this program."""
    engine = sa.create_engine(url, **_pool(url))
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_immediate)
    with engine.begin() as connection:
        alone(connection, "schema")
        version.create(connection, checkfirst=True)
        found = connection.scalar(sa.select(version.c.version))
        if found is None:
            metadata.create_all(connection)
        elif found > VERSION:
            raise SchemaTooNew(found=found, known=VERSION)
        else:
            for upgrade in UPGRADES[found - 1 :]:
                upgrade(connection)
        connection.execute(sa.delete(version))
        connection.execute(sa.insert(version).values(version=VERSION))
    if engine.url.database and engine.dialect.name == "sqlite":
        Path(engine.url.database).chmod(0o600)
    return engine


def _pool(url: str) -> dict[str, Any]:
    """Few connections, which stay open: a pool that lets go of those beyond its size connects anew for each VM.

    Of a server two controllers share a hundred, and dead ones are noticed before use.

    A controller that is stopped in the midst of a transaction must not hold its locks for as long as it sleeps.
    """
    if sa.make_url(url).get_backend_name() == "sqlite":
        return {"pool_size": 15, "max_overflow": 0}
    options = {"options": " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())}
    return {"pool_size": 20, "max_overflow": 0, "pool_events": tried_when_idle(), "connect_args": options}


def alone(connection: sa.Connection, act: str) -> None:
    """Let one transaction at a time, of all controllers, do an act. Those of SQLite are always alone."""
    if connection.dialect.name == "postgresql":
        connection.execute(_ALONE, {"act": f"overkeep {act}"})


def as_alone(act: str) -> sa.ColumnElement[Any]:
    """As `alone`, for the statement of PostgreSQL that does the act."""
    return sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"overkeep {act}")).label("alone")


def is_alone(connection: sa.Connection, act: str) -> bool:
    """As `alone`, but without waiting: False while another transaction does the act."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.scalar(_IS_ALONE, {"act": f"overkeep {act}"}))


def _prepare_sqlite(connection: object, _record: object) -> None:
    # Transactions are begun by hand: the driver would begin them only at the first write, too late for the lock.
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def reading(engine: sa.Engine) -> sa.Engine:
    """The same data base for single reads: on SQLite they wait for no writer, and none for them.

    On PostgreSQL each statement is a transaction of its own, which it is in effect anyway (READ COMMITTED): nothing
    but the statement goes to the server.
    """
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="AUTOCOMMIT")
    return engine.execution_options(**{_READS: True})


@contextmanager
def listing(reader: sa.Engine) -> Iterator[sa.Connection]:
    """A connection for the queries of lists, which the server plans anew for what is asked: one plan serves not all.

    `reader` is of `reading`.
    """
    with reader.connect() as connection:
        if connection.dialect.name != "postgresql":
            yield connection
            return
        driver: Any = connection.connection.driver_connection
        usual, driver.prepare_threshold = driver.prepare_threshold, None
        try:
            yield connection
        finally:
            driver.prepare_threshold = usual


def single(engine: sa.Engine) -> sa.Engine:
    """The same data base for single writes: on PostgreSQL only the statement goes to the server, as in `reading`.

    On SQLite they wait for other writers as all do.
    """
    return reading(engine) if engine.dialect.name == "postgresql" else engine


def _begin_immediate(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
