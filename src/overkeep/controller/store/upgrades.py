# SPDX-License-Identifier: GPL-3.0-or-later
"""The ordered steps that bring an older data base up to the tables of `schema`."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import sqlalchemy as sa


def _add_policies(connection: sa.Connection) -> None:
    """Step 1: policies, what workloads they belong to, and the switch of the scheduler."""
    _do(
        connection,
        "CREATE TABLE policy (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL,"
        " document TEXT NOT NULL)",
        "CREATE TABLE assignment (workload_id TEXT NOT NULL PRIMARY KEY, policy_id TEXT NOT NULL,"
        " paused BOOLEAN NOT NULL, planned_up_to TEXT NOT NULL, told TEXT NOT NULL)",
        "CREATE INDEX ix_assignment_policy_id ON assignment (policy_id)",
        "CREATE TABLE switch (name TEXT NOT NULL PRIMARY KEY)",
    )


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
    _do(
        connection,
        "ALTER TABLE workload ADD COLUMN version INTEGER NOT NULL DEFAULT 1",
        "CREATE TABLE answer (user_id TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, begun TEXT NOT NULL,"
        " kept_until TEXT NOT NULL, status INTEGER, headers TEXT, body TEXT, PRIMARY KEY (user_id, key))",
        "CREATE INDEX ix_answer_kept_until ON answer (kept_until)",
        "CREATE INDEX ix_job_created ON job (created, id)",
    )


def _add_admission(connection: sa.Connection) -> None:
    """Step 4: limits, what waits for them and what has slots; indices of what lives."""
    _do(
        connection,
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
    )


def _index_events(connection: sa.Connection) -> None:
    """Step 5: of many events those that went wrong, and those of a VM by name, are found at once."""
    connection.exec_driver_sql("CREATE INDEX ix_event_bad ON event (seq) WHERE level <> 'info'")
    connection.exec_driver_sql("CREATE INDEX ix_event_vm_name ON event (vm_name)")


def _add_targets(connection: sa.Connection) -> None:
    """Step 6: several targets: which one each workload has and had, and which repository is behind each name."""
    _do(
        connection,
        "ALTER TABLE workload ADD COLUMN target TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE workload_target (workload_id TEXT NOT NULL, target TEXT NOT NULL,"
        " PRIMARY KEY (workload_id, target))",
        "CREATE TABLE target (name TEXT NOT NULL PRIMARY KEY, repository TEXT NOT NULL, since TEXT NOT NULL)",
        "CREATE TABLE installation (id INTEGER NOT NULL PRIMARY KEY, home TEXT NOT NULL)",
    )


def _add_controllers(connection: sa.Connection) -> None:
    """Step 7: controllers that share the data base."""
    connection.exec_driver_sql(
        "CREATE TABLE controller (executor_id TEXT NOT NULL PRIMARY KEY, place TEXT NOT NULL, beat FLOAT NOT NULL)"
    )


def _add_capacity(connection: sa.Connection) -> None:
    """Step 8: the space of targets."""
    _do(
        connection,
        "CREATE TABLE target_space (target TEXT NOT NULL, hour TEXT NOT NULL, size BIGINT NOT NULL,"
        " used BIGINT NOT NULL, free BIGINT NOT NULL, PRIMARY KEY (target, hour))",
        "CREATE TABLE target_fill (target TEXT NOT NULL PRIMARY KEY, fill TEXT NOT NULL)",
    )


def _add_rules(connection: sa.Connection) -> None:
    """Step 9: rules of workloads, and VMs in several workloads."""
    _do(
        connection,
        "ALTER TABLE workload ADD COLUMN rules TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE workload_vm RENAME TO workload_vm_before",
        "CREATE TABLE workload_vm (workload_id TEXT NOT NULL, vm_id TEXT NOT NULL, vm_name TEXT NOT NULL,"
        " position INTEGER NOT NULL, by_rule BOOLEAN NOT NULL DEFAULT FALSE, PRIMARY KEY (workload_id, vm_id))",
        "INSERT INTO workload_vm (workload_id, vm_id, vm_name, position)"
        " SELECT workload_id, vm_id, vm_name, position FROM workload_vm_before",
        "DROP TABLE workload_vm_before",
    )


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
    _do(
        connection,
        f"CREATE TABLE point (seq {number}, target TEXT NOT NULL, workload_id TEXT NOT NULL, vm_id TEXT NOT NULL,"
        " id TEXT NOT NULL, created BIGINT NOT NULL, vm_name TEXT NOT NULL, mode TEXT NOT NULL, pin TEXT NOT NULL,"
        " document TEXT NOT NULL)",
        "CREATE INDEX workload_vm_vm ON workload_vm (vm_id, workload_id)",
        "CREATE UNIQUE INDEX point_place ON point (target, workload_id, vm_id, id)",
        "CREATE INDEX point_id ON point (id)",
        *(f"CREATE INDEX {name} ON point ({columns})" for name, columns in ordered.items()),
        "CREATE TABLE listing (target TEXT NOT NULL PRIMARY KEY, listed TEXT NOT NULL, tried TEXT NOT NULL,"
        " asked TEXT NOT NULL, beat TEXT NOT NULL, error TEXT NOT NULL)",
    )


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
    _do(
        connection,
        "ALTER TABLE workload ADD COLUMN consistency TEXT NOT NULL DEFAULT '{}'",
        "CREATE INDEX held_frozen ON held (ref) WHERE kind = 'freeze' AND released IS NULL",
        "CREATE TABLE gathering (job_id TEXT NOT NULL PRIMARY KEY, stage TEXT NOT NULL,"
        " leader TEXT NOT NULL DEFAULT '', why TEXT NOT NULL DEFAULT '')",
        "CREATE TABLE gathered (job_id TEXT NOT NULL, vm_id TEXT NOT NULL, request TEXT NOT NULL DEFAULT '',"
        " outcome TEXT NOT NULL DEFAULT '', PRIMARY KEY (job_id, vm_id))",
    )


def _add_windows(connection: sa.Connection) -> None:
    """Step 15: other limits in windows of the week."""
    _do(
        connection,
        "ALTER TABLE resource ADD COLUMN windows TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE resource ADD COLUMN zone TEXT NOT NULL DEFAULT 'UTC'",
    )


def _index_lists(connection: sa.Connection) -> None:
    """Step 16: of many jobs and events those that a list wants are found at once."""
    says = ("point_id", "target", "host", "caller")
    _do(
        connection,
        "CREATE INDEX job_of_kind ON job (kind, state, created, id)",
        "CREATE INDEX job_vm_of_vm ON job_vm (vm_id, job_id)",
        "CREATE INDEX job_vm_of_name ON job_vm (vm_name, job_id)",
        "CREATE INDEX event_of_kind ON event (kind, seq)",
        *(f"CREATE INDEX event_of_{name} ON event ({name}, seq) WHERE {name} <> ''" for name in says),
    )


def _add_spent(connection: sa.Connection) -> None:
    """Step 17: where the time of each backup of a VM went."""
    connection.exec_driver_sql("ALTER TABLE job_vm ADD COLUMN spent TEXT NOT NULL DEFAULT ''")


def _span_events(connection: sa.Connection) -> None:
    """Step 18: the times of events by blocks of a thousand numbers in place of an index, and indices of few."""
    _do(
        connection,
        "CREATE TABLE event_span (block BIGINT NOT NULL PRIMARY KEY, low TEXT NOT NULL, high TEXT NOT NULL)",
        "INSERT INTO event_span SELECT seq / 1000, min(time), max(time) FROM event"
        " WHERE seq < (SELECT max(seq) FROM event) / 1000 * 1000 GROUP BY seq / 1000",
        "DROP INDEX ix_event_time",
        "CREATE INDEX event_bad_of_kind ON event (kind, seq, level) WHERE level <> 'info'",
        "CREATE INDEX event_of_whole_job ON event (job_id, vm_id) WHERE vm_id <= ''",
        "CREATE INDEX event_of_whole_workload ON event (workload_id, vm_id) WHERE vm_id <= '' AND job_id <= ''",
    )
    if connection.dialect.name == "postgresql":
        _do(connection, "CREATE STATISTICS event_kind_targets (mcv) ON kind, target FROM event")


def _do(connection: sa.Connection, *statements: str) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)


# Step n turns a data base of version n into one of version n + 1. A step is never changed once it was released, and the
# tables of `schema` are what all steps together lead to; a new data base gets them at once.
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
    _add_windows,
    _index_lists,
    _add_spent,
    _span_events,
)
VERSION = 1 + len(UPGRADES)
