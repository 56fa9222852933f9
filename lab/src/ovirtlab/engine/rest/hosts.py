# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts put into maintenance, activated, upgraded, changed and removed; their statistics and fence agents."""

from __future__ import annotations

from ovirtlab.engine import host_states
from ovirtlab.engine.entities.infrastructure import FenceAgent, HostEntity
from ovirtlab.engine.faults import NotFound, conflict, incomplete
from ovirtlab.engine.rest.documents import Collection, Entity, link_to
from ovirtlab.engine.rest.inventory import HOST_MEMORY, is_spm, show_host
from ovirtlab.engine.rest.kept import keep
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.new_vms import find_cluster
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, statistic
from ovirtlab.engine.state import State

routes = Routes()

_KEPT = ("power_management", "ssh", "spm", "vgpu_placement")
_AGENT = ("address", "concurrent", "encrypt_options", "options", "order", "port", "type", "username")
_SPM = "Cannot force select SPM"
_REMOVABLE = frozenset({"maintenance", "non_responsive", "down"})


@routes.put("hosts/{host}")
async def update_host(call: Call) -> Entity:
    """Name, comment and power management at any time; the cluster only in maintenance."""
    host, body = _host(call), call.body
    call.require("edit_host_configuration", ("host", host.id))
    if "cluster" in body:
        cluster_id = find_cluster(call.context, body)
        if cluster_id != host.cluster_id and host.status != "maintenance":
            raise conflict("Cannot edit Host. Host must be in maintenance mode to change its Cluster.")
        host.cluster_id = cluster_id
    host.name = body.text("name") or host.name
    comment = body.text("comment")
    host.comment = host.comment if comment is None else comment
    keep(call.context.state, host.kept, body, _KEPT)
    return show_host(call, host)


@routes.delete("hosts/{host}")
async def remove_host(call: Call) -> Done:
    """A host in maintenance, or one that is lost, is forgotten; what it was goes on to lie about unused."""
    state, host = call.context.state, _host(call)
    call.require("delete_host", ("host", host.id))
    if host.status not in _REMOVABLE:
        raise conflict("Cannot remove Host. Host is operational. Please switch Host to Maintenance mode first.")
    if any(vm.host_id == host.id for vm in state.vms.values()):
        raise conflict("Cannot remove Host. One or more VMs are still running on this Host.")
    pinned = [vm.name for vm in state.vms.values() if host.id in vm.pinned_hosts]
    if pinned:
        raise conflict(f"Cannot remove Host. The following VMs are pinned to this Host: {','.join(pinned)}.")
    _forget(state, host)
    cause = cause_of(call)
    host_states.tell(call.context, host, 44, f"Host {host.name} was removed by {cause.name}.", cause=cause)
    return Done()


def _forget(state: State, host: HostEntity) -> None:
    del state.hosts[host.id]
    for label in state.affinity_labels.values():
        label.hosts.pop(host.id, None)
    for group in state.affinity_groups.values():
        group.hosts.pop(host.id, None)
    for key in [key for key, item in state.permissions.items() if item.on == ("host", host.id)]:
        del state.permissions[key]


@routes.action("hosts/{host}/deactivate")
async def deactivate_host(call: Call) -> Done:
    """Maintenance, once its VMs have been migrated and its transfers have ended; nothing starts on it from now on."""
    host = _host(call)
    call.require("manipulate_host", ("host", host.id))
    host_states.check_maintenance(call.context, host)
    await host_states.begin_maintenance(call.context, host, cause_of(call))
    work = host_states.enter_maintenance(call.context, host, cause_of(call))
    call.context.background.undertake(work, name=f"maintenance of host {host.name}")
    return Done()


@routes.action("hosts/{host}/activate")
async def activate_host(call: Call) -> Done:
    host = _host(call)
    call.require("manipulate_host", ("host", host.id))
    if host.status not in ("maintenance", "preparing_for_maintenance"):
        raise conflict(f"Cannot activate Host. Host is in {host.status} status.")
    host.status = "unassigned"
    work = host_states.activate(call.context, host, cause_of(call))
    call.context.background.undertake(work, name=f"activate host {host.name}")
    return Done()


@routes.action("hosts/{host}/install")
async def install_host(call: Call) -> Done:
    """Takes its time and ends in maintenance, as a reinstallation does; the lab's hosts need none."""
    host = _host(call)
    call.require("edit_host_configuration", ("host", host.id))
    if host.status != "maintenance":
        raise conflict("Cannot install Host. Host must be in maintenance mode.")
    host.status = "installing"
    call.context.background.undertake(host_states.install(call.context, host), name=f"install host {host.name}")
    return Done()


@routes.action("hosts/{host}/refresh")
async def refresh_host(call: Call) -> Done:
    """What hosts can do is known already; told all the same."""
    host = _host(call)
    call.require("manipulate_host", ("host", host.id))
    text = f"Successfully refreshed the capabilities of host {host.name}."
    host_states.tell(call.context, host, 606, text, cause=cause_of(call))
    return Done()


@routes.action("hosts/{host}/commitnetconfig")
async def commit_network(call: Call) -> Done:
    """Networks of hosts do not change, and are kept as they are."""
    host = _host(call)
    call.require("configure_host_network", ("host", host.id))
    text = f"Network changes were saved on host {host.name}"
    host_states.tell(call.context, host, 1104, text, cause=cause_of(call))
    return Done()


@routes.action("hosts/{host}/forceselectspm")
async def choose_spm(call: Call) -> Done:
    """Let this host manage the storage of its data centre."""
    state, host = call.context.state, _host(call)
    call.require("manipulate_host", ("host", host.id))
    if host.status != "up":
        raise conflict(f"{_SPM}. The Host {host.name} is not active.")
    if is_spm(call.context, host):
        raise conflict(f"{_SPM}. The Host {host.name} is already SPM or contending.")
    state.data_centers[state.clusters[host.cluster_id].data_center_id].spm_host_id = host.id
    cause = cause_of(call)
    text = f"Host {host.name} was force selected by {cause.name}"
    host_states.tell(call.context, host, 159, text, cause=cause)
    return Done()


@routes.action("hosts/{host}/upgradecheck")
async def check_for_upgrade(call: Call) -> Done:
    """Answered at once; event 885 tells that it was done, and the host's `update_available` what was found."""
    host, cause = _host(call), cause_of(call)
    call.require("edit_host_configuration", ("host", host.id))
    host_states.check_upgrade_check(host)
    text = f"Started to check for available updates on host {host.name}."
    host_states.tell(call.context, host, 884, text, cause=cause)
    work = host_states.look_for_updates(call.context, host, cause)
    call.context.background.undertake(work, name=f"check for updates of host {host.name}")
    return Done()


@routes.action("hosts/{host}/upgrade")
async def upgrade_host(call: Call) -> Done:
    """Answered at once; the host goes into maintenance, is rebooted unless `reboot` is false, and comes up again."""
    host, cause = _host(call), cause_of(call)
    call.require("edit_host_configuration", ("host", host.id))
    host_states.check_upgrade(host)
    text = f"Host {host.name} upgrade was started (User: {cause.name})."
    host_states.tell(call.context, host, 840, text, cause=cause)
    work = host_states.upgrade(call.context, host, cause, reboot=call.body.flag("reboot") is not False)
    call.context.background.undertake(work, name=f"upgrade host {host.name}")
    return Done()


@routes.get("hosts/{host}/statistics")
async def list_statistics(call: Call) -> Collection:
    """Memory as the VMs of the host take it; load and traffic are not measured and stand at zero."""
    host = _host(call)
    mine = [vm for vm in call.context.state.vms.values() if vm.host_id == host.id]
    total, used = float(HOST_MEMORY), float(sum(vm.memory for vm in mine))
    base = address("hosts", host.id)
    values = [
        ("memory.total", "Total memory", "bytes", total),
        ("memory.used", "Used memory", "bytes", used),
        ("memory.free", "Free memory", "bytes", total - used),
        ("memory.shared", "Shared memory", "bytes", 0.0),
        ("swap.total", "Total swap", "bytes", 0.0),
        ("swap.free", "Free swap", "bytes", 0.0),
        ("swap.used", "Used swap", "bytes", 0.0),
        ("cpu.current.user", "User CPU usage", "percent", 0.0),
        ("cpu.current.system", "System CPU usage", "percent", 0.0),
        ("cpu.current.idle", "Idle CPU usage", "percent", 100.0),
        ("cpu.load.avg.5m", "CPU 5 minute load average", "percent", 0.0),
    ]
    link = link_to("host", host.id)
    shown = [statistic(base, name, text, unit=unit, value=value, owner=link) for name, text, unit, value in values]
    return Collection("statistics", "statistic", shown)


serve_members(routes, "hosts/{host}/statistics/{statistic}", list_statistics)


@routes.get("hosts/{host}/fenceagents")
async def list_agents(call: Call) -> Collection:
    host = _host(call)
    return Collection("agents", "agent", [_show_agent(host, agent) for agent in host.fence_agents.values()])


@routes.get("hosts/{host}/fenceagents/{agent}")
async def get_agent(call: Call) -> Entity:
    host = _host(call)
    return _show_agent(host, _agent(call, host))


@routes.post("hosts/{host}/fenceagents")
async def add_agent(call: Call) -> Created:
    """The agent is kept; nothing in the lab is fenced."""
    host = _host(call)
    call.require("edit_host_configuration", ("host", host.id))
    for name in ("address", "type", "username", "password", "order"):
        if name not in call.body:
            raise incomplete("Agent", "address, order, password, type, username", "add")
    agent = FenceAgent(id=call.context.state.new_id())
    keep(call.context.state, agent.kept, call.body, _AGENT)
    host.fence_agents[agent.id] = agent
    return Created(lambda: _show_agent(host, agent))


@routes.put("hosts/{host}/fenceagents/{agent}")
async def update_agent(call: Call) -> Entity:
    host = _host(call)
    call.require("edit_host_configuration", ("host", host.id))
    agent = _agent(call, host)
    keep(call.context.state, agent.kept, call.body, _AGENT)
    return _show_agent(host, agent)


@routes.delete("hosts/{host}/fenceagents/{agent}")
async def remove_agent(call: Call) -> Done:
    host = _host(call)
    call.require("edit_host_configuration", ("host", host.id))
    del host.fence_agents[_agent(call, host).id]
    return Done()


def _show_agent(host: HostEntity, agent: FenceAgent) -> Entity:
    fields = {**agent.kept, "host": link_to("host", host.id)}
    return Entity("agent", fields, id=agent.id, href=address("hosts", host.id, "fenceagents", agent.id))


def _host(call: Call) -> HostEntity:
    return call.context.state.host(call.id("host"))


def _agent(call: Call, host: HostEntity) -> FenceAgent:
    agent = host.fence_agents.get(call.id("agent"))
    if agent is None:
        raise NotFound(call.path)
    return agent
