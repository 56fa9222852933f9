# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents about workloads, and how they become values and values become them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from overkeep.api.documents import AwayOut, Document, Name
from overkeep.controller.records import Workload
from overkeep.model.admission import MOST_SLOTS
from overkeep.model.conduct import Conduct
from overkeep.model.consistency import FROZEN_AT_MOST, LONGEST_FREEZE, Consistency, Otherwise, Wanted
from overkeep.model.selection import Choice, Rules, rule

if TYPE_CHECKING:  # the command line reads these documents too, and has no use for the data base's library
    from overkeep.controller.store.listed_workloads import ListedWorkload

RuleText = Annotated[str, BeforeValidator(str), Field(min_length=1, max_length=300)]
DiskPattern = Annotated[str, Field(min_length=1, max_length=300)]


class RulesDoc(Document):
    """What finds VMs before each run, beside those that are named, and what leaves out some of those found.

    A rule is `name=web-*`, `tag=prod`, `cluster=Default` or `property.backup=gold`. `disks` are disks that are not
    backed up, as `scratch*` or `db:scratch*`. Rules are for administrators.
    """

    include: tuple[RuleText, ...] = Field(default=(), max_length=100)
    exclude: tuple[RuleText, ...] = Field(default=(), max_length=100)
    disks: tuple[DiskPattern, ...] = Field(default=(), max_length=100)


class SelectionIn(Document):
    """VMs by name or id, and rules that find more; one of both is needed."""

    vms: tuple[Name, ...] = ()
    rules: RulesDoc = RulesDoc()


class ConsistencyDoc(Document):
    """How consistent the points of a workload are to be, and what to do when that cannot be reached.

    `crash`: as after a power cut. `file-system`: each guest is frozen by its agent for the moment of the backup.
    `group`: all are frozen, then all backups begin, and all are thawed, after `frozen_at_most` seconds at the latest.
    `refuse` makes no point then; `warn` and `accept` make a lesser one, with a warning or without.
    """

    wanted: Wanted = Wanted.CRASH
    otherwise: Otherwise = Otherwise.WARN
    frozen_at_most: int = Field(default=FROZEN_AT_MOST, ge=1, le=LONGEST_FREEZE)


class WorkloadIn(SelectionIn):
    """A workload to be made or changed.

    `parallel` is how many of its VMs are backed up at once, null for as many as the limits let; with 1 they are backed
    up one after the other, in the order of `vms`.

    Without `target` a new one is backed up to the first target, and one that is changed keeps its own.
    """

    name: Name
    description: str = Field(default="", max_length=4000)
    target: Name | None = None
    parallel: int | None = Field(default=None, ge=1, le=MOST_SLOTS)
    consistency: ConsistencyDoc = ConsistencyDoc()


class ChoiceOut(Document):
    """A VM that a workload would have, or that its rules leave out; `why` is the rule, or `named`."""

    vm_id: str
    vm_name: str
    cluster: str
    taken: bool
    why: str


class MemberOut(Document):
    """A VM of a workload; `by_rule` when its rules found it."""

    vm_id: str
    vm_name: str
    by_rule: bool


class WorkloadOut(Document):
    """VMs that are backed up together; `version` rises with each change."""

    id: str
    name: str
    description: str
    created: dt.datetime
    target: str
    members: tuple[MemberOut, ...]
    rules: RulesDoc
    parallel: int | None
    consistency: ConsistencyDoc
    version: int


class GivenTargetIn(Document):
    """The target that a workload is to be backed up to from now on."""

    target: Name


class StayOut(Document):
    """How many points of a workload stay on a target that it had before."""

    target: str
    points: int


class MovedOut(Document):
    """A workload with its new target, and what stays on those that it had before."""

    workload: WorkloadOut
    stay: tuple[StayOut, ...]
    away: tuple[AwayOut, ...]


class SnapshotIn(Document):
    """A backup of a workload; `full` asks for all data although an incremental would do."""

    full: bool = False


def rules_value(asked: RulesDoc) -> Rules:
    """The rules of a document; raises `BadRule`."""
    include, exclude = (tuple(map(rule, texts)) for texts in (asked.include, asked.exclude))
    return Rules(include=include, exclude=exclude, disks=asked.disks)


def choice_out(choice: Choice) -> ChoiceOut:
    """The document of a VM that is taken or left out."""
    vm = choice.vm
    return ChoiceOut(vm_id=vm.id, vm_name=vm.name, cluster=vm.cluster, taken=choice.taken, why=choice.why)


def workload_out(workload: Workload) -> WorkloadOut:
    """The document of a workload."""
    flat = {name: value for name, value in vars(workload).items() if name != "conduct"}
    return WorkloadOut.model_validate({**flat, **vars(workload.conduct)})


def workload_documents(workloads: Sequence[ListedWorkload]) -> list[dict[str, Any]]:
    """The documents of many workloads, as `WorkloadOut`, but not checked; of those of their parts many are alike."""
    rules = {each.rules_text: each for each in workloads}
    consistency = {each.consistency_text: each for each in workloads}
    rules_of = {text: _plain(RulesDoc.model_validate(each.rules)) for text, each in rules.items()}
    wanted_of = {text: _plain(ConsistencyDoc.model_validate(each.consistency)) for text, each in consistency.items()}
    return [
        {
            "id": each.id,
            "name": each.name,
            "description": each.description,
            "created": dt.datetime.fromisoformat(each.created),
            "target": each.target,
            "members": [{"vm_id": vm_id, "vm_name": name, "by_rule": rule} for vm_id, name, rule in each.members],
            "rules": rules_of[each.rules_text],
            "parallel": each.parallel,
            "consistency": wanted_of[each.consistency_text],
            "version": each.version,
        }
        for each in workloads
    ]


def _plain(document: Document) -> dict[str, Any]:
    return document.model_dump(mode="json")


def conduct_value(asked: WorkloadIn) -> Conduct:
    """How the VMs of a workload are to be backed up together."""
    return Conduct(parallel=asked.parallel, consistency=Consistency(**asked.consistency.model_dump()))
