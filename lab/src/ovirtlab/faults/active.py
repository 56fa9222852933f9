# SPDX-License-Identifier: GPL-3.0-or-later
"""All faults by name, and those of one lab that are in force now."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ovirtlab.faults import bitmaps, daemons, engine, machines, network, space
from ovirtlab.faults.base import Fault, FaultError, Lab, Undo

GROUPS: Mapping[str, tuple[type[Fault], ...]] = {
    "VMs and hosts": machines.FAULTS,
    "Bitmaps": bitmaps.FAULTS,
    "Space": space.FAULTS,
    "imageio and NFS": daemons.FAULTS,
    "Network": network.FAULTS,
    "The engine": engine.FAULTS,
}
FAULTS: Mapping[str, type[Fault]] = {fault.name: fault for group in GROUPS.values() for fault in group}


def find(name: str) -> type[Fault]:
    """A kind of fault by its name."""
    if name not in FAULTS:
        raise FaultError(f"there is no fault {name!r}; there are: {', '.join(FAULTS)}")
    return FAULTS[name]


def describe() -> list[dict[str, Any]]:
    """All kinds of faults with their parameters, for programs."""
    return [
        {
            "name": fault.name,
            "summary": fault.summary(),
            "mended": fault.mended,
            "parameters": [
                {"name": one.name, "type": one.kind.__name__, "help": one.help, "default": one.default}
                for one in fault.parameters()
            ],
        }
        for fault in FAULTS.values()
    ]


@dataclass(frozen=True)
class _InForce:
    fault: Fault
    undo: Undo


class ActiveFaults:
    """The faults of one lab; they are made and mended one at a time."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._numbers = itertools.count(1)
        self._active: dict[str, _InForce] = {}
        self._lock = asyncio.Lock()

    async def do(self, name: str, texts: Mapping[str, Any]) -> str:
        """Break something; return the id under which it is mended, empty for what is over at once."""
        fault = find(name).read(texts)
        async with self._lock:
            undo = await fault.do(self._lab)
            if undo is None:
                return ""
            key = str(next(self._numbers))
            self._active[key] = _InForce(fault, undo)
            return key

    def status(self) -> list[dict[str, Any]]:
        """What is in force, oldest first."""
        return [
            {"id": key, "name": one.fault.name, "parameters": asdict(one.fault)}  # type: ignore[call-overload]
            for key, one in self._active.items()
        ]

    async def clear(self, which: str = "") -> list[str]:
        """Mend one by its id, all of a name, or all; return the ids. The latest goes first."""
        async with self._lock:
            chosen = [key for key, one in self._active.items() if which in ("", key, one.fault.name)]
            if which and not chosen:
                raise FaultError(f"no fault {which!r} is in force; see `ovirtlab fault status`")
            for key in reversed(chosen):
                await self._active[key].undo()
                del self._active[key]
            return chosen
