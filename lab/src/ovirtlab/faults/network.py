# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of a host's network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from ovirtlab.fabric.commands import run
from ovirtlab.fabric.processes import in_netns
from ovirtlab.faults.base import Fault, FaultError, Lab, Undo
from ovirtlab.faults.machines import HostName

_LINK = "eth0"
_RULES = {
    "drop": [["INPUT", "-i", _LINK, "-j", "DROP"], ["OUTPUT", "-o", _LINK, "-j", "DROP"]],
    "reject": [
        ["INPUT", "-i", _LINK, "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset"],
        # but for the resets, which are what refuses
        [
            "OUTPUT",
            "-o",
            _LINK,
            "-p",
            "tcp",
            "!",
            "--tcp-flags",
            "RST",
            "RST",
            "-j",
            "REJECT",
            "--reject-with",
            "tcp-reset",
        ],
    ],
}


@dataclass(frozen=True, kw_only=True)
class NetworkCut(Fault):
    """A host is cut off the network and becomes non responsive; its VMs and daemons go on, unknown to the engine."""

    name = "network-cut"
    mended = "The network is whole and the host up, with its VMs as they are."
    host: HostName
    how: Annotated[str, "`down`: no link; `drop`: packets vanish; `reject`: connections are refused."] = "down"

    async def do(self, lab: Lab) -> Undo:
        netns = _netns(lab, self.host)
        if self.how not in ("down", *_RULES):
            raise FaultError(f"how is {self.how!r}; choose one of: down, {', '.join(_RULES)}")
        await _run([_cut(netns, rule, "-A") for rule in _RULES.get(self.how, [])] or [_link(netns, "down")])
        find = lab.lose(self.host)

        async def undo() -> str:
            await _run([_cut(netns, rule, "-D") for rule in _RULES.get(self.how, [])] or [_link(netns, "up")])
            find()
            return ""

        return undo


@dataclass(frozen=True, kw_only=True)
class LinkSlow(Fault):
    """The link of a host is slow in both directions."""

    name = "link-slow"
    mended = "The link has no limit."
    host: HostName
    rate: Annotated[str, "Rate as tc(8) writes it: `1mbit`, `500kbit`, `2mbps` (megabytes)."]

    async def do(self, lab: Lab) -> Undo:
        netns, network = _netns(lab, self.host), lab.parts().network
        port = f"host{list(network.hosts).index(self.host)}"
        ends = ((netns, _LINK), (str(network.server_netns), port))
        shape = ["root", "tbf", "rate", self.rate, "burst", "32kb", "latency", "400ms"]
        await _run([["tc", "-n", where, "qdisc", "replace", "dev", link, *shape] for where, link in ends])

        async def undo() -> str:
            await _run([["tc", "-n", where, "qdisc", "del", "dev", link, "root"] for where, link in ends])
            return ""

        return undo


def _netns(lab: Lab, host: str) -> str:
    lab.host(host)
    netns = lab.parts().network.host_netns[host]
    if netns is None:
        raise FaultError("this lab is on loopback addresses, where no network can be cut; it needs network namespaces")
    return netns


def _cut(netns: str, rule: Sequence[str], act: str) -> list[str]:
    return in_netns(netns, ["iptables", act, *rule])


def _link(netns: str, state: str) -> list[str]:
    return ["ip", "-n", netns, "link", "set", _LINK, state]


async def _run(commands: Sequence[Sequence[str]]) -> None:
    for command in commands:
        await asyncio.to_thread(run, command)


FAULTS: tuple[type[Fault], ...] = (NetworkCut, LinkSlow)
