from __future__ import annotations

import dataclasses
import datetime as dt
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from overkeep.controller.records import Member
from overkeep.controller.store import Store, schema
from overkeep.controller.store.policies import ChangedMeanwhile
from overkeep.errors import Conflict, NotFound
from overkeep.model.policy import Copying, Policy
from overkeep.model.retention import Retention
from overkeep.model.schedule import Schedule
from overkeep.units import KIB

NIGHTLY = Policy(
    name="nightly",
    schedules=(
        Schedule(when="daily at 22:00", zone="Europe/Berlin", start=dt.date(2026, 1, 1), windows=("20:00-06:00",)),
    ),
    retention=Retention(daily=7, weekly=4),
    full_every=30,
    copying=Copying(compression="zstd", level=5),
)
NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 's.sqlite'}")
    yield store
    store.close()


def test_policies_are_kept_as_they_are(store: Store) -> None:
    made = store.policies.create(NIGHTLY)
    assert store.policies.get("nightly") == store.policies.get(made.id) == made
    assert made.policy == NIGHTLY
    with pytest.raises(Conflict, match="named 'nightly'"):
        store.policies.create(NIGHTLY)
    store.policies.delete(made)
    with pytest.raises(NotFound, match="policy list"):
        store.policies.get("nightly")


def test_a_policy_of_before_there_were_sizes_of_clusters_means_64_kib(store: Store) -> None:
    made = store.policies.create(NIGHTLY)
    with store._engine.begin() as connection:
        [[kept]] = connection.execute(sa.select(schema.policy.c.document))
        document = json.loads(kept)
        del document["copying"]["cluster_size"]
        connection.execute(sa.update(schema.policy).values(document=json.dumps(document)))
    assert store.policies.get("nightly") == made
    assert made.policy.copying.cluster_size == 64 * KIB


def test_a_change_of_what_was_changed_meanwhile_is_refused(store: Store) -> None:
    made = store.policies.create(NIGHTLY)
    changed = store.policies.update(made, dataclasses.replace(NIGHTLY, name="night"))
    assert (changed.version, store.policies.get("night").version) == (2, 2)
    with pytest.raises(ChangedMeanwhile, match="'nightly'"):
        store.policies.update(made, dataclasses.replace(NIGHTLY, description="other"))
    assert store.policies.get("night").policy.description == ""
    store.policies.create(NIGHTLY)
    with pytest.raises(Conflict, match="named 'nightly'"):
        store.policies.update(changed, NIGHTLY)


def test_a_policy_that_is_given_stays(store: Store) -> None:
    policy = store.policies.create(NIGHTLY)
    workload = store.workloads.create("shop", [Member(vm_id="1", vm_name="web")], target="nfs1")
    store.assignments.set_policy(workload.id, policy.id, now=NOON)
    with pytest.raises(Conflict, match="workload shop"):
        store.policies.delete(policy)
    store.workloads.delete(workload)
    assert store.assignments.all() == ()
    store.policies.delete(policy)


def test_runs_count_from_when_they_are_planned_again(store: Store) -> None:
    policy = store.policies.create(NIGHTLY)
    store.assignments.set_policy("w", policy.id, now=NOON)
    later = NOON + dt.timedelta(days=1)
    store.assignments.resume("w", now=later)
    assert store.assignments.of("w").planned_up_to == NOON.isoformat(), "it was not paused"
    store.assignments.pause("w")
    assert store.assignments.of("w").paused
    store.assignments.set_policy("w", store.policies.create(Policy(name="other")).id, now=NOON)
    assert store.assignments.of("w").paused, "another policy does not switch it on"
    store.assignments.resume("w", now=later)
    assert store.assignments.of("w").planned_up_to == later.isoformat()
    store.assignments.resume_all(now=NOON)
    assert store.assignments.of("w").planned_up_to == later.isoformat(), "nothing was paused"
    store.assignments.pause_all()
    store.assignments.pause_all()
    assert store.assignments.all_paused
    store.assignments.resume_all(now=NOON)
    assert not store.assignments.all_paused
    assert store.assignments.of("w").planned_up_to == NOON.isoformat()
    store.assignments.set_policy("w", None, now=NOON)
    assert store.assignments.of("w") is None


# The data base of the version before there were policies.
BEFORE_POLICIES = """
CREATE TABLE schema_version (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE workload (id TEXT NOT NULL, name TEXT NOT NULL, description TEXT NOT NULL, created TEXT NOT NULL,
    PRIMARY KEY (id), UNIQUE (name));
CREATE TABLE workload_vm (vm_id TEXT NOT NULL, workload_id TEXT NOT NULL, vm_name TEXT NOT NULL,
    position INTEGER NOT NULL, PRIMARY KEY (vm_id));
CREATE TABLE job (id TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, workload_id TEXT NOT NULL,
    subject TEXT NOT NULL, caller TEXT NOT NULL, request TEXT NOT NULL, created TEXT NOT NULL, started TEXT, ended TEXT,
    error_code TEXT NOT NULL, error TEXT NOT NULL, result TEXT NOT NULL, cancel_requested BOOLEAN NOT NULL,
    PRIMARY KEY (id));
CREATE TABLE job_vm (job_id TEXT NOT NULL, vm_id TEXT NOT NULL, vm_name TEXT NOT NULL, state TEXT NOT NULL,
    phase TEXT NOT NULL, point_id TEXT NOT NULL, error_code TEXT NOT NULL, error TEXT NOT NULL, busy BOOLEAN NOT NULL,
    PRIMARY KEY (job_id, vm_id));
CREATE UNIQUE INDEX job_vm_busy ON job_vm (vm_id) WHERE busy;
CREATE TABLE job_disk (job_id TEXT NOT NULL, vm_id TEXT NOT NULL, disk_id TEXT NOT NULL, name TEXT NOT NULL,
    mode TEXT NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL, done BIGINT NOT NULL, total BIGINT NOT NULL,
    moved BIGINT NOT NULL, PRIMARY KEY (job_id, vm_id, disk_id));
CREATE TABLE job_event (seq INTEGER NOT NULL, job_id TEXT NOT NULL, time TEXT NOT NULL, level TEXT NOT NULL,
    text TEXT NOT NULL, fields TEXT NOT NULL, PRIMARY KEY (seq));
CREATE INDEX ix_job_event_job_id ON job_event (job_id);
CREATE TABLE held (job_id TEXT NOT NULL, kind TEXT NOT NULL, ref TEXT NOT NULL, vm_id TEXT NOT NULL,
    disk_id TEXT NOT NULL, host_id TEXT NOT NULL, opened TEXT NOT NULL, released TEXT,
    PRIMARY KEY (job_id, kind, ref));
INSERT INTO schema_version VALUES (1);
INSERT INTO workload VALUES ('w', 'shop', '', '2026-01-01T00:00:00+00:00');
"""


def test_an_older_data_base_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with sqlite3.connect(path) as old:
        old.executescript(BEFORE_POLICIES)
    old.close()
    store = Store(f"sqlite:///{path}")
    policy = store.policies.create(NIGHTLY)
    store.assignments.set_policy(store.workloads.get("shop").id, policy.id, now=NOON)
    store.close()
    new = tmp_path / "new.sqlite"
    Store(f"sqlite:///{new}").close()
    upgraded, fresh = (sa.inspect(sa.create_engine(f"sqlite:///{file}")) for file in (path, new))
    for table in schema.metadata.sorted_tables:
        shapes = [
            {(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table.name)}
            for found in (upgraded, fresh)
        ]
        assert shapes[0] == shapes[1], table.name
        indexes = [{i["name"] for i in found.get_indexes(table.name)} for found in (upgraded, fresh)]
        assert indexes[0] == indexes[1], table.name
        keys = [found.get_pk_constraint(table.name)["constrained_columns"] for found in (upgraded, fresh)]
        assert keys[0] == keys[1], table.name
