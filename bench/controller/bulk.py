# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing a million rows of a table into a data base of the controller."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import sqlalchemy as sa

Row = dict[str, Any]
_BATCH = 10_000


def fill(url: str, table: sa.Table, rows: Iterable[Row]) -> None:
    """All rows, without the indices at first: what is measured is reading."""
    engine = sa.create_engine(url)
    indices = sorted(table.indexes, key=lambda index: str(index.name))
    with engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA cache_size=-400000")
        for index in indices:
            index.drop(connection)
        for batch in _batches(rows):
            _write(connection, table, batch)
        for index in indices:
            index.create(connection)
    if engine.dialect.name == "postgresql":  # as its autovacuum does by itself a minute later
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"VACUUM ANALYZE {table.name}")
    engine.dispose()


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _write(connection: sa.Connection, table: sa.Table, rows: list[Row]) -> None:
    names = list(rows[0])
    driver: Any = connection.connection.cursor()
    if connection.dialect.name == "sqlite":
        places = ", ".join(f":{name}" for name in names)
        driver.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({places})", rows)  # noqa: S608
    else:
        with driver.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row([None if row[name] is None else str(row[name]) for name in names])
    driver.close()
