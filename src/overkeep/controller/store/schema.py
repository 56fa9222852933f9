# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own tables, and the ordered steps that bring an older data base up to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from overkeep.errors import OverkeepError

metadata = sa.MetaData()

workload = sa.Table(
    "workload",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False, server_default=""),
)
workload_target = sa.Table(  # all targets that a workload was ever backed up to
    "workload_target",
    metadata,
    sa.Column("workload_id", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
)
workload_vm = sa.Table(
    "workload_vm",
    metadata,
    sa.Column("vm_id", sa.Text, primary_key=True),
    sa.Column("workload_id", sa.Text, nullable=False),
    sa.Column("vm_name", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
)
job = sa.Table(
    "job",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("workload_id", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("started", sa.Text),
    sa.Column("ended", sa.Text),
    sa.Column("error_code", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
)
job_vm = sa.Table(
    "job_vm",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("vm_id", sa.Text, primary_key=True),
    sa.Column("vm_name", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("phase", sa.Text, nullable=False),
    sa.Column("point_id", sa.Text, nullable=False),
    sa.Column("error_code", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("busy", sa.Boolean, nullable=False),
)
# At most one job works on a VM at a time, whatever the number of processes that try.
sa.Index("job_vm_busy", job_vm.c.vm_id, unique=True, sqlite_where=job_vm.c.busy, postgresql_where=job_vm.c.busy)
job_disk = sa.Table(
    "job_disk",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("vm_id", sa.Text, primary_key=True),
    sa.Column("disk_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("moved", sa.BigInteger, nullable=False),
)
job_event = sa.Table(
    "job_event",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.Text, nullable=False, index=True),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("fields", sa.Text, nullable=False),
)
held = sa.Table(
    "held",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("ref", sa.Text, primary_key=True),
    sa.Column("vm_id", sa.Text, nullable=False),
    sa.Column("disk_id", sa.Text, nullable=False),
    sa.Column("host_id", sa.Text, nullable=False),
    sa.Column("opened", sa.Text, nullable=False),
    sa.Column("released", sa.Text),
)
policy = sa.Table(
    "policy",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)
assignment = sa.Table(
    "assignment",
    metadata,
    sa.Column("workload_id", sa.Text, primary_key=True),
    sa.Column("policy_id", sa.Text, nullable=False, index=True),
    sa.Column("paused", sa.Boolean, nullable=False),
    sa.Column("planned_up_to", sa.Text, nullable=False),
    sa.Column("told", sa.Text, nullable=False),
)
switch = sa.Table("switch", metadata, sa.Column("name", sa.Text, primary_key=True))  # those that are on
target = sa.Table(  # which repository is behind the name of each target
    "target",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("repository", sa.Text, nullable=False),
    sa.Column("since", sa.Text, nullable=False),
)
installation = sa.Table(  # one row, 1
    "installation",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("home", sa.Text, nullable=False),
)
_version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, primary_key=True))


class SchemaTooNew(OverkeepError):
    """The data base was written by a later version."""

    code = "schema-too-new"
    template = "The data base has schema {found}, this controller knows up to {known}; install the newer controller."


def _add_policies(connection: sa.Connection) -> None:
    """Step 1: policies, what workloads they belong to, and the switch of the scheduler."""
    for statement in (
        "CREATE TABLE policy (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL,"
        " document TEXT NOT NULL)",
        "CREATE TABLE assignment (workload_id TEXT NOT NULL PRIMARY KEY, policy_id TEXT NOT NULL,"
        " paused BOOLEAN NOT NULL, planned_up_to TEXT NOT NULL, told TEXT NOT NULL)",
        "CREATE INDEX ix_assignment_policy_id ON assignment (policy_id)",
        "CREATE TABLE switch (name TEXT NOT NULL PRIMARY KEY)",
    ):
        connection.exec_driver_sql(statement)


def _add_targets(connection: sa.Connection) -> None:
    """Step 2: several targets: which one each workload has and had, and which repository is behind each name."""
    for statement in (
        "ALTER TABLE workload ADD COLUMN target TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE workload_target (workload_id TEXT NOT NULL, target TEXT NOT NULL,"
        " PRIMARY KEY (workload_id, target))",
        "CREATE TABLE target (name TEXT NOT NULL PRIMARY KEY, repository TEXT NOT NULL, since TEXT NOT NULL)",
        "CREATE TABLE installation (id INTEGER NOT NULL PRIMARY KEY, home TEXT NOT NULL)",
    ):
        connection.exec_driver_sql(statement)


# Step n turns a data base of version n into one of version n + 1. A step is never changed once it was released, and the
# tables above are what all steps together lead to; a new data base gets them at once.
UPGRADES: tuple[Callable[[sa.Connection], None], ...] = (_add_policies, _add_targets)
VERSION = 1 + len(UPGRADES)


def open_database(url: str) -> sa.Engine:
    """Connect to `url` and bring its schema up to date; raise `SchemaTooNew` when it is ahead of this program."""
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_immediate)
    with engine.begin() as connection:
        _version.create(connection, checkfirst=True)
        found = connection.scalar(sa.select(_version.c.version))
        if found is None:
            metadata.create_all(connection)
        elif found > VERSION:
            raise SchemaTooNew(found=found, known=VERSION)
        else:
            for upgrade in UPGRADES[found - 1 :]:
                upgrade(connection)
        connection.execute(sa.delete(_version))
        connection.execute(sa.insert(_version).values(version=VERSION))
    if engine.url.database and engine.dialect.name == "sqlite":
        Path(engine.url.database).chmod(0o600)
    return engine


def _prepare_sqlite(connection: object, _record: object) -> None:
    # Transactions are begun by hand: the driver would begin them only at the first write, too late for the lock.
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
