# SPDX-License-Identifier: GPL-3.0-or-later
"""NICs of VMs and the pool their addresses come from."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ovirtlab.engine.entities import MacPool, Nic, Vm
from ovirtlab.engine.faults import conflict, invalid
from ovirtlab.engine.state import State

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def read_mac(text: str) -> str:
    """The address in lower case; refuse one that is malformed."""
    mac = text.lower()
    if not _MAC.fullmatch(mac):
        raise invalid("Invalid MAC address.")
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


def add_nic(state: State, vm: Vm, nic: Nic) -> None:
    """Put a NIC on a VM; names are unique in a VM."""
    if any(other.name == nic.name for other in vm.nics.values()):
        raise conflict("Cannot add Interface. The interface name is already in use.")
    vm.nics[nic.id] = nic
    vm.generation += 1


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
