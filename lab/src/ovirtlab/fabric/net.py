# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of a lab: a namespace with a bridge and the NFS server, one namespace a host, a link to the machine."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ovirtlab.fabric.commands import CommandError, run
from ovirtlab.ledger import Ledger

SERVER_OCTET = 1
FIRST_HOST_OCTET = 11
ROOT_OCTET = 254
MAX_HOSTS = ROOT_OCTET - FIRST_HOST_OCTET
# 10.101.0.0 to 10.199.255.0: clear of what container systems usually take
SUBNETS = tuple(f"10.{second}.{third}.0/24" for second in range(101, 200) for third in range(256))
# set to `loopback` to do without namespaces where they could be made
NETWORK_VARIABLE = "OVIRTLAB_NETWORK"
LOCK = Path(tempfile.gettempdir(), "ovirtlab-network.lock")


@dataclass(frozen=True, kw_only=True)
class Network:
    """Who has which address, and in which namespace; the namespaces are None on loopback addresses.

    `root` is where the controller and the Engine are: the machine's own namespace.
    """

    server: str
    server_netns: str | None
    root: str
    hosts: Mapping[str, str]
    host_netns: Mapping[str, str | None]

    @property
    def isolated(self) -> bool:
        """Whether hosts have networks of their own that can be cut."""
        return self.server_netns is not None


def can_isolate() -> bool:
    """Tell whether network namespaces may be made here, and are wanted."""
    if os.environ.get(NETWORK_VARIABLE) == "loopback":
        return False
    try:
        run(["unshare", "--net", "--mount", "true"])
        run(["ip", "netns", "list"])
    except CommandError:
        return False
    return True


def netns_names(lab_id: str, hosts: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the name of the server's namespace and those of the hosts."""
    return f"ovl-{lab_id}", {name: f"ovl-{lab_id}-{name}" for name in hosts}


def link_name(lab_id: str) -> str:
    """Return the name of the machine's own link into the lab (at most 15 characters)."""
    return f"ovl-{lab_id}"


def free_subnet(lab_id: str, taken: Sequence[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """Choose a subnet that overlaps nothing `taken`; labs with different ids begin to look at different places."""
    start = int(lab_id, 16) % len(SUBNETS)
    for text in SUBNETS[start:] + SUBNETS[:start]:
        subnet = ipaddress.IPv4Network(text)
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise CommandError("no subnet of 10.101.0.0-10.199.255.0 is free on this machine")


def taken_subnets() -> tuple[ipaddress.IPv4Network, ...]:
    """Return what the machine's addresses and routes cover."""
    addresses = [
        f"{item['local']}/{item['prefixlen']}"
        for link in json.loads(run(["ip", "-j", "-4", "address", "show"]))
        for item in link["addr_info"]
    ]
    routes = [route["dst"] for route in json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]))]
    texts = [text for text in addresses + routes if text != "default"]
    return tuple(ipaddress.IPv4Network(text, strict=False) for text in texts)


def build(hosts: Sequence[str], ledger: Ledger) -> Network:
    """Make the network, isolated where the machine permits, else on addresses of 127.0.0.0/8."""
    if len(hosts) > MAX_HOSTS:
        raise CommandError(f"a lab has at most {MAX_HOSTS} hosts, not {len(hosts)}")
    if not can_isolate():
        return loopback(ledger.lab_id, hosts)
    with _one_at_a_time():
        subnet = free_subnet(ledger.lab_id, taken_subnets())
        return _build_isolated(hosts, subnet, ledger)


def loopback(lab_id: str, hosts: Sequence[str]) -> Network:
    """Return addresses of the loopback network; nothing is made, and nothing can be cut."""
    number = int(lab_id, 16)
    prefix = f"127.{1 + number % 254}.{number // 254 % 256}"
    return Network(
        server=f"{prefix}.{SERVER_OCTET}",
        server_netns=None,
        root=f"{prefix}.{ROOT_OCTET}",
        hosts={name: f"{prefix}.{FIRST_HOST_OCTET + index}" for index, name in enumerate(hosts)},
        host_netns=dict.fromkeys(hosts),
    )


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep two labs that start together from choosing the same subnet."""
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_isolated(hosts: Sequence[str], subnet: ipaddress.IPv4Network, ledger: Ledger) -> Network:
    address = {octet: str(subnet[octet]) for octet in range(256)}
    server_netns, host_netns = netns_names(ledger.lab_id, hosts)
    _make_netns(server_netns, ledger)
    _ip(server_netns, "link add br0 type bridge")
    _ip(server_netns, "link set br0 up")
    _ip(server_netns, f"address add {address[SERVER_OCTET]}/24 dev br0")
    for index, name in enumerate(hosts):
        _make_netns(host_netns[name], ledger)
        _plug(host_netns[name], server_netns, f"host{index}")
        _ip(host_netns[name], f"address add {address[FIRST_HOST_OCTET + index]}/24 dev eth0")
    _plug_root(ledger, server_netns, address[ROOT_OCTET])
    return Network(
        server=address[SERVER_OCTET],
        server_netns=server_netns,
        root=address[ROOT_OCTET],
        hosts={name: address[FIRST_HOST_OCTET + index] for index, name in enumerate(hosts)},
        host_netns=host_netns,
    )


def _make_netns(name: str, ledger: Ledger) -> None:
    ledger.record("netns", name)
    run(["ip", "netns", "add", name])
    _ip(name, "link set lo up")


def _plug(netns: str, server_netns: str, port: str) -> None:
    run(
        [
            "ip",
            "link",
            "add",
            "name",
            "eth0",
            "netns",
            netns,
            *f"type veth peer name {port} netns {server_netns}".split(),
        ]
    )
    _ip(server_netns, f"link set {port} master br0 up")
    _ip(netns, "link set eth0 up")


def _plug_root(ledger: Ledger, server_netns: str, address: str) -> None:
    link = link_name(ledger.lab_id)
    ledger.record("link", link)
    run(["ip", "link", "add", "name", link, *f"type veth peer name root netns {server_netns}".split()])
    _ip(server_netns, "link set root master br0 up")
    run(["ip", "address", "add", f"{address}/24", "dev", link])
    run(["ip", "link", "set", link, "up"])


def _ip(netns: str, words: str) -> None:
    run(["ip", "-n", netns, *words.split()])


def remove(lab_id: str) -> list[str]:
    """Remove every namespace and link of a lab, found by name; return what was removed. Idempotent."""
    removed = []
    for netns in existing(lab_id):
        run(["ip", "netns", "delete", netns])
        removed.append(f"network namespace {netns}")
    link = link_name(lab_id)
    if Path("/sys/class/net", link).exists():
        # deleting a namespace takes its veth ends with it, a moment later: then the link goes by itself
        with contextlib.suppress(CommandError):
            run(["ip", "link", "delete", link])
        removed.append(f"link {link}")
    return removed


def existing(lab_id: str) -> list[str]:
    """Return the names of the namespaces of a lab."""
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.glob(f"ovl-{lab_id}*")) if folder.is_dir() else []
