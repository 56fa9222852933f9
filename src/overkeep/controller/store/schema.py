# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own tables, and the ordered steps that bring an older data base up to them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from overkeep.errors import OverkeepError

IDLE_IN_TRANSACTION = 15  # seconds after which PostgreSQL ends a transaction in which nothing happens

_READS = "overkeep_reads"

metadata = sa.MetaData()

workload = sa.Table(
    "workload",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("created", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False, server_default="1"),
    sa.Column("target", sa.Text, nullable=False, server_default=""),
    sa.Column("rules", sa.Text, nullable=False, server_default="{}"),
    sa.Column("parallel", sa.Integer),  # VMs at once
    sa.Column("consistency", sa.Text, nullable=False, server_default="{}"),
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
    sa.Column("workload_id", sa.Text, primary_key=True),
    sa.Column("vm_id", sa.Text, primary_key=True),
    sa.Column("vm_name", sa.Text, nullable=False),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("by_rule", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("workload_vm_vm", "vm_id", "workload_id"),
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
    # what the dispatcher knows of it: what was agreed on when it was opened, whether it was told that VMs wait
    sa.Column("agreed", sa.Text, nullable=False, server_default=""),
    sa.Column("given", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("wait_told", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_job_created", "created", "id"),
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
    # its way to its turn (`overkeep.controller.records.Stage`), the resources that it needs as JSON, its place in line
    sa.Column("stage", sa.Text, nullable=False, server_default=""),
    sa.Column("needs", sa.Text, nullable=False, server_default=""),
    sa.Column("rank", sa.Text, nullable=False, server_default=""),
)
_LIVE = "state IN ('queued', 'running')"
# Spelt out, as SQLite uses a partial index only for the very words of its condition.
job_lives = sa.text(f"job.{_LIVE}")
job_vm_lives = sa.text(f"job_vm.{_LIVE}")


def _partial(
    name: str, *columns: sa.Column[Any], where: sa.ColumnElement[bool] | sa.TextClause, unique: bool = False
) -> sa.Index:
    return sa.Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


# At most one job works on a VM at a time, whatever the number of processes that try.
_partial("job_vm_busy", job_vm.c.vm_id, where=job_vm.c.busy, unique=True)
_partial("job_vm_waiting", job_vm.c.needs, job_vm.c.rank, where=sa.text("stage = 'waiting'"))
_partial("job_vm_admitted", job_vm.c.job_id, where=sa.text("stage = 'admitted'"))
_partial("job_vm_live", job_vm.c.job_id, where=sa.text(_LIVE))
_partial("job_live", job.c.created, where=sa.text(_LIVE))
sa.Index("job_newest", job.c.workload_id, job.c.created)
# A slot of a resource that a VM of a job has while it is worked on.
slot = sa.Table(
    "slot",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("vm_id", sa.Text, primary_key=True),
    sa.Column("resource", sa.Text, primary_key=True, index=True),
)
# What an administrator wrote down about resources; those without a row have the defaults.
resource = sa.Table(
    "resource",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("capacity", sa.Integer),
    sa.Column("paused", sa.Boolean, nullable=False),
)
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
event = sa.Table(
    "event",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("time", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("level", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, nullable=False, index=True),
    sa.Column("workload_id", sa.Text, nullable=False, index=True),
    sa.Column("vm_id", sa.Text, nullable=False, index=True),
    sa.Column("vm_name", sa.Text, nullable=False, index=True),
    sa.Column("point_id", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("fields", sa.Text, nullable=False),
    sa.Column("key", sa.Text, unique=True),
    sqlite_autoincrement=True,  # the number of an event that was forgotten is never given again
)
# What went wrong is asked for most, and is little; the condition must stand word for word in the query.
EVENT_BAD = sa.text("level <> 'info'")
sa.Index("ix_event_bad", event.c.seq, sqlite_where=EVENT_BAD, postgresql_where=EVENT_BAD)
# How far the events were sent to each place outside; `mark` makes the numbers that they get there our own.
relay = sa.Table(
    "relay",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("mark", sa.Text, nullable=False),
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
# Looked for every second; the condition must stand word for word in the query.
HELD_FROZEN = sa.text("held.kind = 'freeze' AND held.released IS NULL")
sa.Index(
    "held_frozen",
    held.c.ref,
    sqlite_where=sa.text("kind = 'freeze' AND released IS NULL"),
    postgresql_where=sa.text("kind = 'freeze' AND released IS NULL"),
)
# Runs whose VMs are backed up in one moment (`overkeep.controller.gathering`), and who of them is ready for it.
gathering = sa.Table(
    "gathering",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("leader", sa.Text, nullable=False, server_default=""),
    sa.Column("why", sa.Text, nullable=False, server_default=""),
)
gathered = sa.Table(
    "gathered",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("vm_id", sa.Text, primary_key=True),
    sa.Column("request", sa.Text, nullable=False, server_default=""),
    sa.Column("outcome", sa.Text, nullable=False, server_default=""),
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
# Controllers that live, for those that share a data base.
controller = sa.Table(
    "controller",
    metadata,
    sa.Column("executor_id", sa.Text, primary_key=True),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("beat", sa.Float(53), nullable=False),  # seconds, by the clock of the data base
)
switch = sa.Table("switch", metadata, sa.Column("name", sa.Text, primary_key=True))  # those that are on
# What calls with an idempotency key were answered; `status` is NULL while one has not ended.
answer = sa.Table(
    "answer",
    metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("begun", sa.Text, nullable=False),
    sa.Column("kept_until", sa.Text, nullable=False, index=True),
    sa.Column("status", sa.Integer),
    sa.Column("headers", sa.Text),
    sa.Column("body", sa.Text),
)
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
target_space = sa.Table(  # by the hour
    "target_space",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("hour", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Column("free", sa.BigInteger, nullable=False),
)
target_fill = sa.Table(  # the mark that each target passed last
    "target_fill",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("fill", sa.Text, nullable=False),
)
# The restore points on the targets as they were last seen; the manifests there are the truth. `created` is in
# microseconds since 1970, `document` the point without its pin, `pin` empty or a document.
point = sa.Table(
    "point",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("workload_id", sa.Text, nullable=False),
    sa.Column("vm_id", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("vm_name", sa.Text, nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("pin", sa.Text, nullable=False),
    sa.Column("verification", sa.Text, nullable=False, server_default=""),
    sa.Column("document", sa.Text, nullable=False),
    sa.Index("point_place", "target", "workload_id", "vm_id", "id", unique=True),
    sa.Index("point_id", "id"),
    # each filter of a list with the order of its pages
    sa.Index("point_created", "created", "seq"),
    sa.Index("point_of_workload", "workload_id", "created", "seq"),
    sa.Index("point_of_vm", "vm_id", "created", "seq"),
    sa.Index("point_of_vm_name", "vm_name", "created", "seq"),
    sa.Index("point_of_mode", "mode", "created", "seq"),
    sa.Index("point_on_target", "target", "created", "seq"),
    sa.Index("point_on_target_of_mode", "target", "mode", "created", "seq"),
)
# How each target was last listed: times as text, empty for never. `beat` is set while it is being listed.
listing = sa.Table(
    "listing",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("listed", sa.Text, nullable=False),
    sa.Column("tried", sa.Text, nullable=False),
    sa.Column("asked", sa.Text, nullable=False),
    sa.Column("beat", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
)
target_probe = sa.Table(  # what trying a target out from a host showed last; `host` is empty for controllers
    "target_probe",
    metadata,
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("error_code", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("found", sa.Text, nullable=False),  # JSON of a Probe, empty when it failed
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


def _fold_events(connection: sa.Connection) -> None:
    """Step 2: events of everything, not of jobs alone; the Manager is not told of those that were there before."""
    sqlite = connection.dialect.name == "sqlite"
    number = "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT" if sqlite else "BIGSERIAL PRIMARY KEY"
    texts = ("time", "kind", "level", "text", "job_id", "workload_id", "vm_id", "vm_name", "point_id", "target")
    columns = ", ".join(f"{name} TEXT NOT NULL" for name in (*texts, "host", "caller", "fields"))
    connection.exec_driver_sql(f"CREATE TABLE event (seq {number}, {columns}, key TEXT UNIQUE)")
    for name in ("time", "job_id", "workload_id", "vm_id"):
        connection.exec_driver_sql(f"CREATE INDEX ix_event_{name} ON event ({name})")
    connection.exec_driver_sql(
        "INSERT INTO event (time, kind, level, text, job_id, workload_id, vm_id, vm_name, point_id, target, host,"
        " caller, fields) SELECT e.time, 'job.note', e.level, e.text, e.job_id, COALESCE(j.workload_id, ''), '', '',"
        " '', '', '', COALESCE(j.caller, ''), e.fields FROM job_event e LEFT JOIN job j ON j.id = e.job_id"
        " ORDER BY e.seq"
    )
    connection.exec_driver_sql("DROP TABLE job_event")
    connection.exec_driver_sql(
        "CREATE TABLE relay (name TEXT NOT NULL PRIMARY KEY, seq BIGINT NOT NULL, mark TEXT NOT NULL)"
    )
    connection.execute(
        sa.text("INSERT INTO relay SELECT 'manager', COALESCE(MAX(seq), 0), :mark FROM event"),
        {"mark": uuid.uuid4().hex},
    )


def _add_answers(connection: sa.Connection) -> None:
    """Step 3: versions of workloads, answers that may be repeated, and jobs in pages."""
    for statement in (
        "ALTER TABLE workload ADD COLUMN version INTEGER NOT NULL DEFAULT 1",
        "CREATE TABLE answer (user_id TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, begun TEXT NOT NULL,"
        " kept_until TEXT NOT NULL, status INTEGER, headers TEXT, body TEXT, PRIMARY KEY (user_id, key))",
        "CREATE INDEX ix_answer_kept_until ON answer (kept_until)",
        "CREATE INDEX ix_job_created ON job (created, id)",
    ):
        connection.exec_driver_sql(statement)


def _add_admission(connection: sa.Connection) -> None:
    """Step 4: limits, what waits for them and what has slots; indices of what lives."""
    for statement in (
        "ALTER TABLE job ADD COLUMN agreed TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE job ADD COLUMN given BOOLEAN NOT NULL DEFAULT FALSE",
        "ALTER TABLE job ADD COLUMN wait_told BOOLEAN NOT NULL DEFAULT FALSE",
        "ALTER TABLE job_vm ADD COLUMN stage TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE job_vm ADD COLUMN needs TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE job_vm ADD COLUMN rank TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX job_vm_waiting ON job_vm (needs, rank) WHERE stage = 'waiting'",
        "CREATE INDEX job_vm_admitted ON job_vm (job_id) WHERE stage = 'admitted'",
        "CREATE INDEX job_vm_live ON job_vm (job_id) WHERE state IN ('queued', 'running')",
        "CREATE INDEX job_live ON job (created) WHERE state IN ('queued', 'running')",
        "CREATE INDEX job_newest ON job (workload_id, created)",
        "CREATE TABLE slot (job_id TEXT NOT NULL, vm_id TEXT NOT NULL, resource TEXT NOT NULL,"
        " PRIMARY KEY (job_id, vm_id, resource))",
        "CREATE INDEX ix_slot_resource ON slot (resource)",
        "CREATE TABLE resource (name TEXT NOT NULL PRIMARY KEY, capacity INTEGER, paused BOOLEAN NOT NULL)",
    ):
        connection.exec_driver_sql(statement)


def _index_events(connection: sa.Connection) -> None:
    """Step 5: of many events those that went wrong, and those of a VM by name, are found at once."""
    connection.exec_driver_sql("CREATE INDEX ix_event_bad ON event (seq) WHERE level <> 'info'")
    connection.exec_driver_sql("CREATE INDEX ix_event_vm_name ON event (vm_name)")


def _add_targets(connection: sa.Connection) -> None:
    """Step 6: several targets: which one each workload has and had, and which repository is behind each name."""
    for statement in (
        "ALTER TABLE workload ADD COLUMN target TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE workload_target (workload_id TEXT NOT NULL, target TEXT NOT NULL,"
        " PRIMARY KEY (workload_id, target))",
        "CREATE TABLE target (name TEXT NOT NULL PRIMARY KEY, repository TEXT NOT NULL, since TEXT NOT NULL)",
        "CREATE TABLE installation (id INTEGER NOT NULL PRIMARY KEY, home TEXT NOT NULL)",
    ):
        connection.exec_driver_sql(statement)


def _add_controllers(connection: sa.Connection) -> None:
    """Step 7: controllers that share the data base."""
    connection.exec_driver_sql(
        "CREATE TABLE controller (executor_id TEXT NOT NULL PRIMARY KEY, place TEXT NOT NULL, beat FLOAT NOT NULL)"
    )


def _add_capacity(connection: sa.Connection) -> None:
    """Step 8: the space of targets."""
    for statement in (
        "CREATE TABLE target_space (target TEXT NOT NULL, hour TEXT NOT NULL, size BIGINT NOT NULL,"
        " used BIGINT NOT NULL, free BIGINT NOT NULL, PRIMARY KEY (target, hour))",
        "CREATE TABLE target_fill (target TEXT NOT NULL PRIMARY KEY, fill TEXT NOT NULL)",
    ):
        connection.exec_driver_sql(statement)


def _add_rules(connection: sa.Connection) -> None:
    """Step 9: rules of workloads, and VMs in several workloads."""
    for statement in (
        "ALTER TABLE workload ADD COLUMN rules TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE workload_vm RENAME TO workload_vm_before",
        "CREATE TABLE workload_vm (workload_id TEXT NOT NULL, vm_id TEXT NOT NULL, vm_name TEXT NOT NULL,"
        " position INTEGER NOT NULL, by_rule BOOLEAN NOT NULL DEFAULT FALSE, PRIMARY KEY (workload_id, vm_id))",
        "INSERT INTO workload_vm (workload_id, vm_id, vm_name, position)"
        " SELECT workload_id, vm_id, vm_name, position FROM workload_vm_before",
        "DROP TABLE workload_vm_before",
    ):
        connection.exec_driver_sql(statement)


def _add_points(connection: sa.Connection) -> None:
    """Step 10: the restore points on the targets; they are listed at the first start."""
    sqlite = connection.dialect.name == "sqlite"
    number = "INTEGER NOT NULL PRIMARY KEY" if sqlite else "BIGSERIAL PRIMARY KEY"
    ordered = {
        "point_created": "created, seq",
        "point_of_workload": "workload_id, created, seq",
        "point_of_vm": "vm_id, created, seq",
        "point_of_vm_name": "vm_name, created, seq",
        "point_of_mode": "mode, created, seq",
        "point_on_target": "target, created, seq",
        "point_on_target_of_mode": "target, mode, created, seq",
    }
    for statement in (
        f"CREATE TABLE point (seq {number}, target TEXT NOT NULL, workload_id TEXT NOT NULL, vm_id TEXT NOT NULL,"
        " id TEXT NOT NULL, created BIGINT NOT NULL, vm_name TEXT NOT NULL, mode TEXT NOT NULL, pin TEXT NOT NULL,"
        " document TEXT NOT NULL)",
        "CREATE INDEX workload_vm_vm ON workload_vm (vm_id, workload_id)",
        "CREATE UNIQUE INDEX point_place ON point (target, workload_id, vm_id, id)",
        "CREATE INDEX point_id ON point (id)",
        *(f"CREATE INDEX {name} ON point ({columns})" for name, columns in ordered.items()),
        "CREATE TABLE listing (target TEXT NOT NULL PRIMARY KEY, listed TEXT NOT NULL, tried TEXT NOT NULL,"
        " asked TEXT NOT NULL, beat TEXT NOT NULL, error TEXT NOT NULL)",
    ):
        connection.exec_driver_sql(statement)


def _add_probes(connection: sa.Connection) -> None:
    """Step 11: what probes of targets showed."""
    connection.exec_driver_sql(
        "CREATE TABLE target_probe (target TEXT NOT NULL, host TEXT NOT NULL, time TEXT NOT NULL,"
        " error_code TEXT NOT NULL, error TEXT NOT NULL, found TEXT NOT NULL, PRIMARY KEY (target, host))"
    )


def _add_parallel(connection: sa.Connection) -> None:
    """Step 12: how many VMs of a workload are backed up at once."""
    connection.exec_driver_sql("ALTER TABLE workload ADD COLUMN parallel INTEGER")


def _add_verifications(connection: sa.Connection) -> None:
    """Step 13: how the last check of each point went."""
    connection.exec_driver_sql("ALTER TABLE point ADD COLUMN verification TEXT NOT NULL DEFAULT ''")


def _add_consistency(connection: sa.Connection) -> None:
    """Step 14: how consistent points are to be, guests that are frozen, and VMs that begin together."""
    for statement in (
        "ALTER TABLE workload ADD COLUMN consistency TEXT NOT NULL DEFAULT '{}'",
        "CREATE INDEX held_frozen ON held (ref) WHERE kind = 'freeze' AND released IS NULL",
        "CREATE TABLE gathering (job_id TEXT NOT NULL PRIMARY KEY, stage TEXT NOT NULL,"
        " leader TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT '')",
        "CREATE TABLE gathered (job_id TEXT NOT NULL, vm_id TEXT NOT NULL, request TEXT NOT NULL DEFAULT '',"
        " outcome TEXT NOT NULL DEFAULT '', PRIMARY KEY (job_id, vm_id))",
    ):
        connection.exec_driver_sql(statement)


# Step n turns a data base of version n into one of version n + 1. A step is never changed once it was released, and the
# tables above are what all steps together lead to; a new data base gets them at once.
UPGRADES: tuple[Callable[[sa.Connection], None], ...] = (
    _add_policies,
    _fold_events,
    _add_answers,
    _add_admission,
    _index_events,
    _add_targets,
    _add_controllers,
    _add_capacity,
    _add_rules,
    _add_points,
    _add_probes,
    _add_parallel,
    _add_verifications,
    _add_consistency,
)
VERSION = 1 + len(UPGRADES)


def open_database(url: str) -> sa.Engine:
    """Connect to `url` and bring its schema up to date; raise `SchemaTooNew` when it is ahead of this program."""
    engine = sa.create_engine(url, **_pool(url))
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_immediate)
    with engine.begin() as connection:
        alone(connection, "schema")
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


def _pool(url: str) -> dict[str, Any]:
    """Of a server: few connections, for two controllers share a hundred, and dead ones are noticed before use.

    A controller that is stopped in the midst of a transaction must not hold its locks for as long as it sleeps.
    """
    if sa.make_url(url).get_backend_name() == "sqlite":
        return {}
    options = {"options": f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION}s"}
    return {"pool_size": 10, "max_overflow": 10, "pool_pre_ping": True, "connect_args": options}


def alone(connection: sa.Connection, act: str) -> None:
    """Let one transaction at a time, of all controllers, do an act. Those of SQLite are always alone."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_lock(act))))


def is_alone(connection: sa.Connection, act: str) -> bool:
    """As `alone`, but without waiting: False while another transaction does the act."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock(_lock(act)))))


def _lock(act: str) -> sa.ColumnElement[int]:
    return sa.func.hashtext(f"overkeep {act}")


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


def _begin_immediate(connection: sa.Connection) -> None:
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
