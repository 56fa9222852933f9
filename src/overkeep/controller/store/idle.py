# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to a server that nobody used for a while are tried before use: the server may be another one by now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy as sa

AFTER = 5.0  # seconds
_USED = "overkeep_used"

Listeners = list[tuple[Callable[..., None], str]]
"""What a pool of SQLAlchemy takes as `pool_events`."""


def tried_when_idle(*, clock: Callable[[], float] = time.monotonic) -> Listeners:
    """For a pool of psycopg connections, in place of its `pre_ping`, which tries each one before each use.

    That is one more way to the server and back for each transaction. One that breaks while it is in use is an error
    either way, and takes all others with it.
    """

    def checkin(connection: psycopg.Connection[Any] | None, record: sa.pool.ConnectionPoolEntry) -> None:
        if connection is not None:
            record.info[_USED] = clock()

    def checkout(connection: psycopg.Connection[Any], record: sa.pool.ConnectionPoolEntry, _proxy: object) -> None:
        if clock() - record.info.get(_USED, clock()) < AFTER:
            return
        try:
            _try(connection)
        except psycopg.Error as error:
            raise sa.exc.InvalidatePoolError from error

    return [(checkin, "checkin"), (checkout, "checkout")]


def _try(connection: psycopg.Connection[Any]) -> None:
    connection.autocommit = True  # nothing but the statement goes to the server
    connection.execute("SELECT 1")
    connection.autocommit = False
