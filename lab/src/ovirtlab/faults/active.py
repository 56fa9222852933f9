# SPDX-License-Identifier: GPL-3.0-or-later
"""All faults by name, and those of one lab that are in force now."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ovirtlab.fabric.commands import CommandError
from ovirtlab.fabric.processes import StartError
from ovirtlab.faults import bitmaps, daemons, engine, machines, network, recovery, space
from ovirtlab.faults.base import Fault, FaultError, Lab, Undo
from ovirtlab.host.api import HostError

MENDING_ERRORS = (FaultError, HostError, StartError, CommandError, OSError)

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
            "lasting": fault.lasting,
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


@dataclass(frozen=True)
class Cleared:
    """The ids of what was mended, and a sentence for each thing that stays as it is."""

    ids: list[str]
    remains: list[str]


class ActiveFaults:
    """The faults of one lab; they are made and mended one at a time."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._numbers = itertools.count(1)
        self._active: dict[str, _InForce] = {}
        self._over: list[Fault] = []  # over at once, but not without a trace
        self._lock = asyncio.Lock()

    async def do(self, name: str, texts: Mapping[str, Any]) -> str:
        """Break something; return the id under which it is mended, empty for what is over at once."""
        fault = find(name).read(texts)
        async with self._lock:
            undo = await fault.do(self._lab)
            if undo is None:
                self._over += [fault] if fault.lasting else []
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

    async def clear(self, which: str = "") -> Cleared:
        """Mend one by its id, all of a name, or all, the latest first.

        Raises `FaultError` for those that could not be mended, which stay in force; all others are mended.
        """
        async with self._lock:
            chosen = [key for key, one in self._active.items() if which in ("", key, one.fault.name)]
            over = [fault for fault in self._over if which in ("", fault.name)]
            if which and not chosen and not over:
                raise FaultError(f"no fault {which!r} is in force; see `ovirtlab fault status`")
            self._over = [fault for fault in self._over if fault not in over]
            remains = [_remains(fault) for fault in over]
            failed = []
            for key in reversed(chosen):
                try:
                    remains += await self._mend(key)
                except MENDING_ERRORS as error:
                    failed.append(f"{self._active[key].fault.name} ({key}): {error}")
            if failed:
                raise FaultError(f"not mended, and still in force: {'; '.join(failed)}")
            return Cleared(chosen, remains)

    async def _mend(self, key: str) -> list[str]:
        one = self._active[key]
        stays = await one.undo()
        await recovery.stop_sessions(self._lab.engine.context)
        del self._active[key]
        return ([_remains(one.fault)] if one.fault.lasting else []) + ([stays] if stays else [])


def _remains(fault: Fault) -> str:
    return f"{fault.name}: {fault.lasting}"
