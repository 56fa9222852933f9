# SPDX-License-Identifier: GPL-3.0-or-later
"""What an administrator says of a host, or has done to it from outside: approved, fenced, given a new certificate."""

from __future__ import annotations

from ovirtlab.engine import host_states
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.infrastructure import HostEntity
from ovirtlab.engine.faults import conflict, incomplete, malformed
from ovirtlab.engine.jobs import Cause
from ovirtlab.engine.rest.documents import Entity
from ovirtlab.engine.rest.routing import Answer, Call, Done, Routes
from ovirtlab.engine.rest.shapes import cause_of
from ovirtlab.engine.running import went_down

routes = Routes()

_FENCES = ("manual", "restart", "start", "stop", "status")
_DISABLED = "Cannot fence Host, Host fence is disabled."
_UNFIT = {
    "start": (
        ("down", "non_responsive", "maintenance"),
        "Cannot perform Start operation, Host has to be in one of the following statuses: Down ,Non Responsive or "
        "Maintenance.",
    ),
    "stop": (
        ("maintenance",),
        "Cannot perform Stop operation, Host has to be in Maintenance mode in order to be stopped.",
    ),
}
_MAY_BE_OFF = frozenset(
    {"down", "install_failed", "maintenance", "non_operational", "non_responsive", "reboot", "installing", "connecting"}
)
_ENROLS = frozenset({"maintenance", "install_failed", "non_responsive"})


@routes.action("hosts/{host}/approve")
async def approve_host(call: Call) -> Done:
    """The lab's hosts were approved when it started, and none waits for it."""
    host = _host(call)
    call.require("edit_host_configuration", ("host", host.id))
    raise conflict(
        'Cannot approve RHVH Host.\n-Host must be in "Pending Approval" or "Install Failed" status in order to be '
        "approved."
    )


@routes.action("hosts/{host}/enrollcertificate")
async def enroll_certificate(call: Call) -> Done:
    """Told when it has begun and when it is done; what the daemons of a host show stays as it is."""
    context, host, cause = call.context, _host(call), cause_of(call)
    call.require("edit_host_configuration", ("host", host.id))
    if host.status not in _ENROLS:
        raise conflict("Cannot enroll certificate Host. Please switch Host to Maintenance mode first.")
    text = f"Enrolling certificate for host {host.name} was started (User: {cause.name})."
    host_states.tell(context, host, 880, text, cause=cause)
    context.background.undertake(_enroll(context, host, cause), name=f"certificate of host {host.name}")
    return Done()


@routes.action("hosts/{host}/fence")
async def fence_host(call: Call) -> Answer:
    """`manual` is believed: the VMs of a lost host are down then. Power management there is none, and that is told."""
    host, kind = _host(call), call.body.text("fence_type")
    call.require("manipulate_host", ("host", host.id))
    if kind is None:
        raise incomplete("Action", "fenceType", "fence")
    if kind.lower() not in _FENCES:
        raise malformed(f"'{kind}' is not a valid fence type.")
    if kind.lower() == "status":
        fault = Entity("fault", {"reason": f"Invalid fence agents defined for host '{host.address}'."})
        return Entity("action", {"fault": fault, "fence_type": kind, "status": "failed"})
    if kind.lower() == "manual":
        return _confirm_reboot(call.context, host, cause_of(call))
    statuses, unfit = _UNFIT.get(kind.lower(), ((host.status,), ""))
    refusals = [_DISABLED, f"Cannot {kind.lower()} Host. Fence operation failed."]
    raise conflict(*refusals, *([] if host.status in statuses else [unfit]))


async def _enroll(context: Context, host: HostEntity, cause: Cause) -> None:
    await context.clock.sleep(context.state.settings.host_installation)
    text = f"Enrolling certificate for host {host.name} was completed successfully (User: {cause.name})."
    host_states.tell(context, host, 881, text, cause=cause)


def _confirm_reboot(context: Context, host: HostEntity, cause: Cause) -> Done:
    """Whoever confirms it answers for it: a QEMU that runs on all the same still writes to its disks."""
    if host.status not in _MAY_BE_OFF:
        raise conflict(
            'Cannot confirm \'Host has been rebooted\' Host. Valid Host statuses are "Non operational", "Maintenance" '
            'or "Connecting".'
        )
    for vm in [vm for vm in context.state.vms.values() if vm.host_id == host.id]:
        went_down(context, vm)
        text = f"Vm {vm.name} was shut down due to {host.name} host reboot or manual fence"
        context.state.events.add(143, "normal", text, vm=vm.id, host=host.id, correlation_id=cause.correlation_id)
    host_states.tell(context, host, 494, f"Manual fence for host {host.name} was started.", cause=cause)
    return Done()


def _host(call: Call) -> HostEntity:
    return call.context.state.host(call.id("host"))
