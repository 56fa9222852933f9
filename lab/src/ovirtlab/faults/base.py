# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fault is, what it acts on, and how one is read from names and texts."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

from ovirtlab.engine import reach
from ovirtlab.engine.app import Engine
from ovirtlab.engine.entities.infrastructure import HostEntity
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.fabric.assembly import Fabric
from ovirtlab.host.local import LocalHost

Undo = Callable[[], Awaitable[str]]
"""Mends, and returns a sentence about what could not be, empty when all is well."""


class FaultError(ValueError):
    """A fault that was asked for cannot be had; the text is the sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """What faults act on. An engine on hosts in memory has no `hosts` and no `fabric`."""

    engine: Engine
    hosts: Mapping[str, LocalHost]  # by name
    fabric: Fabric | None

    def host(self, name: str) -> LocalHost:
        """A real host by name."""
        if name not in self.hosts:
            raise FaultError(f"there is no host {name!r}; there are: {', '.join(self.hosts) or 'none'}")
        return self.hosts[name]

    def record(self, name: str) -> HostEntity:
        """What the engine knows of a host."""
        return self.engine.state.hosts[self.host(name).id]

    def lose(self, name: str) -> Callable[[], None]:
        """Let the engine lose a host; return what lets it find the host again."""
        record = self.record(name)
        line, context = self.engine.lines[record.id], self.engine.context
        reach.lose(context, line, record)
        return lambda: reach.find(context, line, record)

    def vm(self, name_or_id: str) -> Vm:
        """What the engine knows of a VM."""
        vms = self.engine.state.vms.values()
        found = next((vm for vm in vms if name_or_id in (vm.id, vm.name)), None)
        if found is None:
            raise FaultError(f"there is no VM {name_or_id!r}; there are: {', '.join(vm.name for vm in vms) or 'none'}")
        return found

    def running(self, name_or_id: str) -> tuple[Vm, LocalHost]:
        """A VM that is not down, and the host it is on."""
        vm = self.vm(name_or_id)
        host = next((host for host in self.hosts.values() if host.vm_state(vm.id) != "down"), None)
        if host is None:
            raise FaultError(f"VM {vm.name} is not running; start it through the Engine first")
        return vm, host

    def parts(self) -> Fabric:
        """Network, daemons and NFS server."""
        if self.fabric is None:
            raise FaultError("this lab is an engine only; it has no network, daemons or NFS server to break")
        return self.fabric


class Fault(ABC):
    """One fault with its parameters. Subclasses are frozen dataclasses whose fields are `Annotated` with their help.

    The docstring's first line says what goes wrong; `mended` what clearing does, empty for what is over at once;
    `lasting` what nothing brings back.
    """

    name: ClassVar[str]
    mended: ClassVar[str] = ""
    lasting: ClassVar[str] = ""

    @abstractmethod
    async def do(self, lab: Lab) -> Undo | None:
        """Break it and return what mends it, None when it is over at once; raise `FaultError` or `HostError`."""

    @classmethod
    def summary(cls) -> str:
        return (cls.__doc__ or "").strip().splitlines()[0]

    @classmethod
    def parameters(cls) -> tuple[Parameter, ...]:
        """The parameters in order."""
        hints = typing.get_type_hints(cls, include_extras=True)
        return tuple(
            Parameter(
                name=field.name,
                kind=typing.get_args(hints[field.name])[0],
                help=str(typing.get_args(hints[field.name])[1]),
                default=None if field.default is MISSING else field.default,
            )
            for field in fields(cls)  # type: ignore[arg-type]
        )

    @classmethod
    def read(cls, texts: Mapping[str, Any]) -> Fault:
        """Make the fault from texts by parameter; raise `FaultError` that says what is wrong with them."""
        known = {parameter.name: parameter for parameter in cls.parameters()}
        for name in texts:
            if name not in known:
                raise FaultError(f"{cls.name} has no parameter {name!r}; there are: {', '.join(known) or 'none'}")
        missing = [name for name, parameter in known.items() if parameter.default is None and name not in texts]
        if missing:
            raise FaultError(f"{cls.name} needs {', '.join(missing)}; see `ovirtlab fault list`")
        return cls(**{name: known[name].convert(value) for name, value in texts.items()})


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a fault; `default` is None when it must be given."""

    name: str
    kind: type
    help: str
    default: Any

    def convert(self, value: Any) -> Any:
        """Return the value in its own type."""
        try:
            return self.kind(value)
        except (TypeError, ValueError) as error:
            word = "a whole number" if self.kind is int else "a number"
            raise FaultError(f"{self.name} must be {word}, not {value!r}") from error
