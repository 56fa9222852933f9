# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's own tables. Steps in `upgrades` bring an older data base up to them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

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
    sa.Column("spent", sa.Text, nullable=False, server_default=""),  # JSON of Spent, empty before its end
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
sa.Index("job_of_kind", job.c.kind, job.c.state, job.c.created, job.c.id)
sa.Index("job_vm_of_vm", job_vm.c.vm_id, job_vm.c.job_id)
sa.Index("job_vm_of_name", job_vm.c.vm_name, job_vm.c.job_id)
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
    sa.Column("windows", sa.Text, nullable=False, server_default="[]"),  # JSON of SlotsWindow
    sa.Column("zone", sa.Text, nullable=False, server_default="UTC"),
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
    sa.Column("time", sa.Text, nullable=False),
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
# Each kind in the order of the lists; and the few events that say something of these.
sa.Index("event_of_kind", event.c.kind, event.c.seq)
_partial("event_bad_of_kind", event.c.kind, event.c.seq, event.c.level, where=EVENT_BAD)
# What is told of a job or a workload as a whole: of a run with many VMs it is little. For `=` SQLite would read all
# events of the VM '' in the index of VMs. The second column lets it prefer them to indices of all events.
EVENT_OF_JOB = sa.text("vm_id <= ''")
EVENT_OF_WORKLOAD = sa.text("vm_id <= '' AND job_id <= ''")
_partial("event_of_whole_job", event.c.job_id, event.c.vm_id, where=EVENT_OF_JOB)
_partial("event_of_whole_workload", event.c.workload_id, event.c.vm_id, where=EVENT_OF_WORKLOAD)
EVENT_SAYS = {name: sa.text(f"{name} <> ''") for name in ("point_id", "target", "host", "caller")}
for _name, _says in EVENT_SAYS.items():
    _partial(f"event_of_{_name}", event.c[_name], event.c.seq, where=_says)
# A kind and whether a target is named go together; a server that does not know it puts all events of both in order.
_KIND_TARGETS = sa.DDL("CREATE STATISTICS event_kind_targets (mcv) ON kind, target FROM event")  # type: ignore[no-untyped-call] # SQLAlchemy gives it no types
sa.event.listen(event, "after_create", _KIND_TARGETS.execute_if(dialect="postgresql"))
# Between which times the events of each block of numbers lie (`overkeep.controller.store.event_spans`).
event_span = sa.Table(
    "event_span",
    metadata,
    sa.Column("block", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("low", sa.Text, nullable=False),
    sa.Column("high", sa.Text, nullable=False),
)
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
# Runs whose VMs are backed up in one moment (`overkeep.controller.activities.gathering`), and who of them is ready.
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

version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, primary_key=True))
