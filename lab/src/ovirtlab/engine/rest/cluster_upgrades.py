# SPDX-License-Identifier: GPL-3.0-or-later
"""`/clusters/{cluster}/upgrade`: the mark that who upgrades a cluster's hosts sets, and how far it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ovirtlab.engine.entities.infrastructure import Cluster, ClusterUpgrade
from ovirtlab.engine.faults import incomplete, invalid, malformed
from ovirtlab.engine.rest.inventory import cluster_of
from ovirtlab.engine.rest.routing import Call, Done, Routes
from ovirtlab.engine.rest.shapes import cause_of

routes = Routes()


@routes.action("clusters/{cluster}/upgrade")
async def upgrade_cluster(call: Call) -> Done:
    """`start`, `update_progress` or `finish`; the hosts are upgraded by orders of their own."""
    cluster, wanted = cluster_of(call), call.body.text("upgrade_action")
    call.require("edit_cluster_configuration", ("cluster", cluster.id))
    if wanted is None:
        raise incomplete("Action", "upgradeAction", "upgrade")
    if wanted not in _ACTIONS:
        raise malformed(f"Invalid value '{wanted}' for upgrade_action: one of {', '.join(_ACTIONS)} is expected.")
    _ACTIONS[wanted](call, cluster)
    return Done()


def _start(call: Call, cluster: Cluster) -> None:
    if cluster.upgrade is not None:
        raise invalid(f"Failed to set upgrade running flag on cluster '{cluster.id}'.")
    cluster.upgrade = ClusterUpgrade(correlation_id=_correlation_id(call))
    _tell(call, cluster, 892, f"set upgrade running flag on Host cluster {cluster.name} by {cause_of(call).name}")


def _update(call: Call, cluster: Cluster) -> None:
    percent = call.body.integer("upgrade_percent_complete") or 0
    if cluster.upgrade is None:
        raise invalid("Cannot update progress, cluster upgrade has not been started.")
    if not 0 <= percent <= 100:
        raise invalid("Cannot update upgrade percent complete, the value needs to be in the range of 0 to 100.")
    if cluster.upgrade.correlation_id != _correlation_id(call):
        raise invalid("Cannot update progress, given correlation id does not match the current update correlation id.")
    cluster.upgrade = dataclasses.replace(cluster.upgrade, percent=percent)
    done = f"updated upgrade percent complete on Host cluster {cluster.name}"
    _tell(call, cluster, 896, f"{done} by (User: {cause_of(call).name})")


def _finish(call: Call, cluster: Cluster) -> None:
    cluster.upgrade = None
    done = f"cleared upgrade running flag on Host cluster {cluster.name}"
    _tell(call, cluster, 894, f"{done} by (User: {cause_of(call).name})")


_ACTIONS: dict[str, Callable[[Call, Cluster], None]] = {
    "start": _start,
    "update_progress": _update,
    "finish": _finish,
}


def _correlation_id(call: Call) -> str:
    return call.body.text("correlation_id") or call.correlation_id


def _tell(call: Call, cluster: Cluster, code: int, done: str) -> None:
    cause = cause_of(call)
    call.context.state.events.add(
        code,
        "normal",
        f"Successfully {done}",
        correlation_id=cause.correlation_id,
        cluster=cluster.id,
        user=cause.user.id,
    )
