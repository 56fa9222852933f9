# SPDX-License-Identifier: GPL-3.0-or-later
"""`/vms/{vm}/nics` and the networks behind them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ovirtlab.engine import networks
from ovirtlab.engine.context import Context
from ovirtlab.engine.entities.networks import MacPool, Network, Nic, VnicProfile
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import NotFound, conflict, incomplete, invalid, malformed
from ovirtlab.engine.machines import tell
from ovirtlab.engine.rest import search_keys
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import Collection, Entity, Items, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address, cause_of, check_seen, vm_of
from ovirtlab.engine.rest.stored import StoredKind, serve
from ovirtlab.engine.state import State

routes = Routes()

_LINKS = ("networkfilterparameters", "reporteddevices", "statistics")
_NOT_LIVE = (
    "Updating some of the properties is not supported while the interface is plugged into a running virtual machine. "
    "Please un-plug the interface, update the properties, and then plug it back."
)
_PLUGGABLE = frozenset({"up", "down", "image_locked", "powering_down", "powering_up"})


@routes.get("vms/{vm}/nics")
async def list_nics(call: Call) -> Collection:
    vm = vm_of(call)
    return Collection("nics", "nic", [show_nic(nic, vm_link(nic)) for nic in vm.nics.values()])


@routes.get("vms/{vm}/nics/{nic}")
async def get_nic(call: Call) -> Entity:
    nic = _find(call, vm_of(call))
    return show_nic(nic, vm_link(nic))


@routes.post("vms/{vm}/nics")
async def add_nic(call: Call) -> Created:
    context, vm = call.context, vm_of(call)
    call.require("configure_vm_network", ("vm", vm.id))
    _check_status(vm, "add")
    nic = new_nic(context.state, call.body, owner=vm.id)
    networks.check_name(vm.nics.values(), nic.name)
    if nic.mac:
        networks.check_mac(context.state, nic.mac)
    else:
        nic.mac = networks.allocate_mac(context.state)
    vm.nics[nic.id] = nic
    _tell(call, vm, 932, f"{words(nic)} was added to VM {vm.name}.")
    return Created(lambda: show_nic(nic, vm_link(nic)))


@routes.put("vms/{vm}/nics/{nic}")
async def update_nic(call: Call) -> Entity:
    vm = vm_of(call)
    nic = _find(call, vm)
    call.require("configure_vm_network", ("vm", vm.id))
    _check_status(vm, "edit")
    new = changed(call.context.state, nic, call.body, verb="edit")
    networks.check_name(vm.nics.values(), new.name, besides=nic.id)
    live = vm.status == "up" and nic.plugged and new.plugged
    if live and (new.mac, new.interface) != (nic.mac, nic.interface):
        raise conflict(f"Cannot edit Interface. {_NOT_LIVE}")
    networks.check_mac(call.context.state, new.mac, besides=nic.id)
    vm.nics[nic.id] = new
    state = "UP" if new.linked else "DOWN"
    _tell(call, vm, 934, f"{words(new)} was updated for VM {vm.name}. Link State is {state}.")
    return show_nic(new, vm_link(new))


@routes.action("vms/{vm}/nics/{nic}/activate")
async def activate_nic(call: Call) -> Done:
    """Plug an interface; the lab's QEMU has no network cards, so nothing changes for the guest."""
    return _plug(call, plugged=True)


@routes.action("vms/{vm}/nics/{nic}/deactivate")
async def deactivate_nic(call: Call) -> Done:
    return _plug(call, plugged=False)


def _plug(call: Call, *, plugged: bool) -> Done:
    context, vm = call.context, vm_of(call)
    nic = _find(call, vm)
    call.require("configure_vm_network", ("vm", vm.id))
    verb = "hot plug" if plugged else "hot unplug"
    if vm.status not in _PLUGGABLE:
        raise conflict(f"Cannot {verb} Interface because the VM is in {vm.status} status.")
    if plugged:
        networks.check_mac(context.state, nic.mac, besides=nic.id)
    if nic.plugged != plugged:
        nic.plugged = plugged
        code, word = (1012, "plugged to") if plugged else (1014, "unplugged from")
        _tell(call, vm, code, f"Network {words(nic)} was {word} VM {vm.name}.")
    return Done()


@routes.delete("vms/{vm}/nics/{nic}")
async def remove_nic(call: Call) -> Done:
    vm = vm_of(call)
    nic = _find(call, vm)
    call.require("configure_vm_network", ("vm", vm.id))
    if vm.status not in ("down", "image_locked") and nic.plugged:
        raise conflict("Cannot remove Interface. The VM Network Interface is plugged to a running VM.")
    del vm.nics[nic.id]
    call.context.state.forget_stored(call.path)
    _tell(call, vm, 930, f"{words(nic)} was removed from VM {vm.name}.")
    return Done()


@routes.get("vms/{vm}/nics/{nic}/reporteddevices")
async def list_reported_of_nic(call: Call) -> Collection:
    _find(call, vm_of(call))
    return Collection("reported_devices", "reported_device", [])


def _place(call: Call) -> tuple[str, str]:
    _find(call, vm_of(call))
    return ("vm", call.id("vm"))


FILTER_PARAMETERS = StoredKind(
    tag="network_filter_parameters",
    member="network_filter_parameter",
    keeps=("name", "value"),
    needs=("name", "value"),
    permit="configure_vm_network",
    place=_place,
    unique=False,
)
serve(routes, FILTER_PARAMETERS, "vms/{vm}/nics/{nic}/networkfilterparameters")


@routes.get("networks")
async def list_networks(call: Call) -> Collection:
    return network_kind(call.context).listing(call, call.context.state.networks.values())


@routes.get("networks/{network}")
async def get_network(call: Call) -> Entity:
    network = call.context.state.networks.get(call.id("network"))
    if network is None:
        raise NotFound(call.path)
    check_seen(call, ("network", network.id))
    return show_network(call, network)


@routes.get("networks/{network}/vnicprofiles")
async def list_profiles_of_network(call: Call) -> Collection:
    network_id = call.id("network")
    mine = [item for item in call.context.state.vnic_profiles.values() if item.network_id == network_id]
    return PROFILES.listing(call, mine)


@routes.get("datacenters/{data_center}/networks")
async def list_networks_of_data_center(call: Call) -> Collection:
    key = call.id("data_center")
    mine = [item for item in call.context.state.networks.values() if item.data_center_id == key]
    return network_kind(call.context).listing(call, mine)


@routes.get("vnicprofiles")
async def list_profiles(call: Call) -> Collection:
    return PROFILES.listing(call, call.context.state.vnic_profiles.values())


@routes.get("vnicprofiles/{profile}")
async def get_profile(call: Call) -> Entity:
    profile = call.context.state.vnic_profiles.get(call.id("profile"))
    if profile is None:
        raise NotFound(call.path)
    check_seen(call, ("vnic_profile", profile.id))
    return show_profile(call, profile)


@routes.get("macpools")
async def list_mac_pools(call: Call) -> Collection:
    return MAC_POOLS.listing(call, call.context.state.mac_pools.values())


@routes.get("macpools/{pool}")
async def get_mac_pool(call: Call) -> Entity:
    return show_mac_pool(call, mac_pool_of(call))


def vm_link(nic: Nic) -> Entity | None:
    """The VM that a NIC is of."""
    return link_to("vm", nic.vm_id)


def show_nic(nic: Nic, owner: Entity | None, *, links: Sequence[str] = _LINKS) -> Entity:
    """A NIC of a VM or of a template, to which `owner` is a link."""
    assert owner is not None
    fields: dict[str, Value] = {
        "name": nic.name,
        "interface": nic.interface,
        "linked": nic.linked,
        "mac": Entity("mac", {"address": nic.mac}) if nic.mac else None,
        "plugged": nic.plugged,
        "synced": True,
        owner.tag: owner,
        "vnic_profile": link_to("vnic_profile", nic.vnic_profile_id),
    }
    href = f"{owner.href}/nics/{nic.id}"
    return Entity("nic", fields, id=nic.id, href=href, links=links)


def show_network(call: Call, network: Network) -> Entity:
    fields: dict[str, Value] = {
        "name": network.name,
        "description": network.description,
        "comment": network.comment,
        "mtu": network.mtu,
        "vdsm_name": network.name,
        "vlan": None if network.vlan is None else Entity("vlan", id=str(network.vlan)),
        "data_center": link_to("data_center", network.data_center_id),
        **network.kept,
    }
    links = ("networklabels", "permissions", "vnicprofiles")
    return Entity("network", fields, id=network.id, href=address("networks", network.id), links=links)


def show_profile(call: Call, profile: VnicProfile) -> Entity:
    fields: dict[str, Value] = {
        "name": profile.name,
        "description": profile.description or None,
        "network": link_to("network", profile.network_id),
        **profile.kept,
    }
    links = ("permissions",)
    return Entity("vnic_profile", fields, id=profile.id, href=address("vnicprofiles", profile.id), links=links)


def show_mac_pool(call: Call, pool: MacPool) -> Entity:
    spans = [Entity("range", {"from": start, "to": end}) for start, end in ((pool.start, pool.end), *pool.more)]
    fields: dict[str, Value] = {
        "name": pool.name,
        "description": pool.description or None,
        "allow_duplicates": pool.allow_duplicates,
        "default_pool": pool.default,
        "ranges": Items("range", spans),
    }
    return Entity("mac_pool", fields, id=pool.id, href=address("macpools", pool.id))


def network_kind(context: Context) -> Kind[Network]:
    """How networks are listed and found."""
    return Kind(
        tag="networks",
        member="network",
        show=show_network,
        place=lambda item: ("network", item.id),
        words=search_keys.of_networks(context.state),
    )


PROFILES: Kind[VnicProfile] = Kind(
    tag="vnic_profiles",
    member="vnic_profile",
    show=show_profile,
    words={"name": lambda item: item.name, "id": lambda item: item.id},
    place=lambda item: ("vnic_profile", item.id),
)
MAC_POOLS: Kind[MacPool] = Kind(tag="mac_pools", member="mac_pool", show=show_mac_pool)


def network_of(call: Call) -> Network:
    """The network of the path."""
    network = call.context.state.networks.get(call.id("network"))
    if network is None:
        raise NotFound(call.path)
    return network


def profile_of(call: Call) -> VnicProfile:
    """The vNIC profile of the path."""
    profile = call.context.state.vnic_profiles.get(call.id("profile"))
    if profile is None:
        raise NotFound(call.path)
    return profile


def mac_pool_of(call: Call) -> MacPool:
    """The MAC pool of the path."""
    pool = call.context.state.mac_pools.get(call.id("pool"))
    if pool is None:
        raise NotFound(call.path)
    return pool


def _find(call: Call, vm: Vm) -> Nic:
    nic = vm.nics.get(call.id("nic"))
    if nic is None:
        raise NotFound(call.path)
    return nic


def words(nic: Nic) -> str:
    """What events call a NIC."""
    return f"Interface {nic.name} ({networks.KINDS[nic.interface]})"


def _tell(call: Call, vm: Vm, code: int, text: str) -> None:
    """An event about a change of a VM's NICs, which is one of the VM."""
    vm.generation += 1
    cause = cause_of(call)
    tell(call.context, vm, cause, code, f"{text} (User: {cause.name})")


def _check_status(vm: Vm, verb: str) -> None:
    if vm.status not in ("up", "down", "image_locked"):
        raise conflict(f"Cannot {verb} a Network Interface when VM is not Down, Up or Image-Locked.")


def new_nic(state: State, body: Body, *, owner: str) -> Nic:
    """The NIC that a request describes, for a VM or a template; without an address when it has none."""
    name = body.text("name")
    if not name:
        raise incomplete("Nic", "name", "add")
    return changed(state, Nic(id=state.new_id(), vm_id=owner, name=name, mac=""), body, verb="add")


def changed(state: State, nic: Nic, body: Body, *, verb: str) -> Nic:
    """A NIC as a request wants it to be."""
    kind = body.text("interface") or nic.interface
    if kind not in networks.KINDS:
        raise malformed(f"Invalid value '{kind}' for interface: one of {', '.join(networks.KINDS)} is expected.")
    mac = body.text("mac", "address")
    plugged, linked = body.flag("plugged"), body.flag("linked")
    return dataclasses.replace(
        nic,
        name=body.text("name") or nic.name,
        interface=kind,
        mac=networks.read_mac(mac) if mac else nic.mac,
        plugged=nic.plugged if plugged is None else plugged,
        linked=nic.linked if linked is None else linked,
        vnic_profile_id=_profile(state, body, verb) if "vnic_profile" in body else nic.vnic_profile_id,
    )


def _profile(state: State, body: Body, verb: str) -> str:
    """The profile that a request names; empty for none."""
    profile = body.ref("vnic_profile") or ""
    if profile and profile not in state.vnic_profiles:
        raise invalid(f"Cannot {verb} Interface. The specified VM network interface profile doesn't exist.")
    return profile
