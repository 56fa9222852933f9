# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to a real server that nobody used for a while are tried before use; those in use are not."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from overkeep.controller.store.idle import AFTER, tried_when_idle
from tests.clock import Clock
from tests.postgres import Postgres, driver


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def engine(postgres: Postgres, clock: Clock):
    engine = sa.create_engine(driver(postgres.new_database()), pool_events=tried_when_idle(clock=clock), pool_size=2)
    yield engine
    engine.dispose()


def pid(engine: sa.Engine) -> int:
    with engine.begin() as connection:
        return int(connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0)


def kill(engine: sa.Engine, found: int) -> None:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (found,))


def test_one_that_broke_while_it_was_idle_is_replaced(engine: sa.Engine, clock: Clock) -> None:
    before = pid(engine)
    clock.now += AFTER
    assert pid(engine) == before, "it is tried, and is fine"
    kill(engine, before)
    clock.now += AFTER
    assert pid(engine) != before


def test_one_that_is_in_use_is_not_tried(engine: sa.Engine, clock: Clock) -> None:
    before = pid(engine)
    clock.now += AFTER - 1
    assert pid(engine) == before
    kill(engine, before)
    clock.now += AFTER - 1
    with pytest.raises(sa.exc.OperationalError):
        pid(engine)
    assert pid(engine) != before, "the error takes it and all others away"


def test_what_is_tried_is_not_left_in_a_transaction(engine: sa.Engine, clock: Clock) -> None:
    pid(engine)
    clock.now += AFTER
    with engine.connect() as connection:
        driver_connection = connection.connection.driver_connection
        assert isinstance(driver_connection, psycopg.Connection)
        assert (driver_connection.info.transaction_status, driver_connection.autocommit) == (0, False)
