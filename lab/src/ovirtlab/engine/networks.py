# SPDX-License-Identifier: GPL-3.0-or-later
"""NICs of VMs and the pool their addresses come from."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from ovirtlab.engine.entities.networks import MacPool, Nic
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import conflict, invalid
from ovirtlab.engine.state import State

KINDS = {  # of interfaces, and what events call them
    "e1000": "e1000",
    "e1000e": "e1000e",
    "pci_passthrough": "PCI Passthrough",
    "rtl8139": "rtl8139",
    "rtl8139_virtio": "Dual mode rtl8139, VirtIO",
    "spapr_vlan": "sPAPR VLAN",
    "virtio": "VirtIO",
}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MALFORMED = (
    'MAC address must be in format "HH:HH:HH:HH:HH:HH" where H is a hexadecimal character '
    "(either a digit or A-F, case is insignificant)."
)


def read_mac(text: str) -> str:
    """The address in lower case; refuse one that is malformed."""
    mac = text.lower()
    if not _MAC.fullmatch(mac) or mac == "00:00:00:00:00:00":
        raise invalid(_MALFORMED)
    if int(mac[:2], 16) & 1:
        raise invalid("Multi-cast MAC address is not allowed.")
    return mac


def check_mac(state: State, mac: str, *, besides: str = "") -> str:
    """The address in lower case; refuse one that is malformed or in use by another NIC than `besides`."""
    mac = read_mac(mac)
    for vm in state.vms.values():
        for nic in vm.nics.values():
            if nic.mac == mac and nic.id != besides:
                raise conflict(f"MAC Address {mac} is already in use by VM or snapshot: {vm.name}.")
    return mac


def allocate_mac(state: State, *, besides: Collection[str] = ()) -> str:
    """The first free address of the pools that is not among `besides`."""
    used = {nic.mac for vm in state.vms.values() for nic in vm.nics.values()} | set(besides)
    for pool in state.mac_pools.values():
        for number in _numbers(pool):
            mac = _as_text(number)
            if mac not in used:
                return mac
    raise conflict("Not enough MAC addresses left in MAC Address Pool.")


def check_name(nics: Iterable[Nic], name: str, *, besides: str = "") -> None:
    """Refuse a name that another of these NICs has."""
    if any(other.name == name and other.id != besides for other in nics):
        raise conflict("Network interface name is already in use")


def copies(state: State, nics: Iterable[Nic], vm: Vm) -> dict[str, Nic]:
    """The NICs of another VM or of a template as a new VM has them: with addresses of its own."""
    made: dict[str, Nic] = {}
    for nic in nics:
        mac = allocate_mac(state, besides=[other.mac for other in made.values()])
        twin = replace(nic, id=state.new_id(), vm_id=vm.id, mac=mac)
        made[twin.id] = twin
    return made


def find_profile(state: State, *, network: str, profile: str) -> str:
    """The id of a vNIC profile by its name and network, as an OVF names it; empty when there is none."""
    for candidate in state.vnic_profiles.values():
        if candidate.name == profile and state.networks[candidate.network_id].name == network:
            return candidate.id
    return ""


def _numbers(pool: MacPool) -> Iterator[int]:
    for start, end in ((pool.start, pool.end), *pool.more):
        yield from range(_as_number(start), _as_number(end) + 1)


def _as_number(mac: str) -> int:
    return int(mac.replace(":", ""), 16)


def _as_text(number: int) -> str:
    return ":".join(f"{number >> shift & 0xFF:02x}" for shift in range(40, -8, -8))
