# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a restore goes, decided twice with the same plan: before the job, for the caller's rights, and in the job."""

from __future__ import annotations

from typing import Any

from overkeep.controller.ports import Ports
from overkeep.controller.targets.configured import PlacedPoint
from overkeep.errors import OverkeepError
from overkeep.model.points import RestorePoint
from overkeep.model.restore import (
    Names,
    RestorePlan,
    RestoreRequest,
    Target,
    Targets,
    choose_cluster,
    plan_restore,
    targets_of,
)


class TargetsChanged(OverkeepError):
    """The Manager's clusters or storage domains changed between the caller's request and the job."""

    code = "restore-targets-changed"
    template = (
        "The restore of VM {vm!r} would now go to {where}, which is not what the rights of its caller were looked at "
        "for; start the restore anew."
    )
    status = 409


def decide_targets(ports: Ports, placed: PlacedPoint, request: RestoreRequest) -> Targets:
    """Return where restoring a point would make something now.

    Raises the errors of `plan_restore`, of the port to the Manager, and of the repository.
    """
    point = placed.point
    document = placed.target.repository.configuration(point).document
    names = names_now(ports, point, request, document=document)
    # the ids of the disks follow from the job, which does not exist yet; nothing here looks at them
    return targets_of(plan_restore(point, request, document=document, names=names, job_id=""), names)


def names_now(ports: Ports, point: RestorePoint, request: RestoreRequest, *, document: Any) -> Names:
    """Return what the Manager has, limited to the data center that is restored into."""
    engine = ports.engine
    clusters = engine.clusters()
    cluster_id = choose_cluster(point, request, document=document, clusters=clusters)
    return Names(
        vms={vm.name: vm.id for vm in engine.vms()},
        clusters=clusters,
        storage_domains=engine.storage_domains(cluster_id=cluster_id),
        vnic_profiles=engine.vnic_profiles(cluster_id=cluster_id),
    )


def require_permitted(plan: RestorePlan, names: Names, *, permitted: Targets) -> None:
    """Raise `TargetsChanged` unless the plan keeps to where its caller may make something."""
    now = targets_of(plan, names)
    allowed = {target.id for target in _all(permitted)}
    other = [target.name for target in _all(now) if target.id not in allowed]
    if other:
        raise TargetsChanged(vm=plan.vm_name, where=", ".join(map(repr, other)))


def _all(targets: Targets) -> tuple[Target, ...]:
    return (targets.cluster, *targets.storage_domains)
