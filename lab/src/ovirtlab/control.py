# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor's own API, on a unix socket: guests, states, and faults of the fabric."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ovirtlab.engine.faults import NotFound
from ovirtlab.fabric.assembly import Fabric
from ovirtlab.fabric.commands import CommandError
from ovirtlab.fabric.processes import StartError
from ovirtlab.faults.active import ActiveFaults, describe
from ovirtlab.host.api import HostError, VmState


class GuestHost(Protocol):
    """What a host does for the command line, beyond the Engine's verbs."""

    name: str

    async def guest_exec(self, vm_id: str, argv: Sequence[str]) -> tuple[int, bytes, bytes]: ...
    async def block_io(self, vm_id: str, target: str, command: str) -> str: ...
    def vm_state(self, vm_id: str) -> VmState: ...


class VmIndex(Protocol):
    """What the Engine knows of VMs."""

    def find_vm(self, name_or_id: str) -> tuple[str, object]:
        """Return a VM's id and its host; raise `NotFound` when there is no such VM."""

    def describe(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Control:
    """The handlers, on the running parts of a lab."""

    engine: VmIndex
    hosts: Sequence[GuestHost]
    fabric: Fabric
    faults: ActiveFaults

    @property
    def asgi(self) -> Starlette:
        """The application to serve."""
        routes = [
            Route("/status", self._told(self._status), methods=["GET"]),
            Route("/vms/{vm}", self._told(self._vm), methods=["GET"]),
            Route("/vms/{vm}/exec", self._told(self._exec), methods=["POST"]),
            Route("/vms/{vm}/io", self._told(self._io), methods=["POST"]),
            Route("/faults/kinds", self._told(self._fault_kinds), methods=["GET"]),
            Route("/faults", self._told(self._active_faults), methods=["GET"]),
            Route("/faults", self._told(self._begin_fault), methods=["POST"]),
            Route("/faults", self._told(self._clear_faults), methods=["DELETE"]),
            Route("/faults/{which}", self._told(self._clear_faults), methods=["DELETE"]),
        ]
        return Starlette(routes=routes)

    def _told(self, handler: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        """Answer with what `handler` returns, or with the sentence of its error."""

        async def respond(request: Request) -> Response:
            try:
                return JSONResponse(await handler(request))
            except NotFound:
                return JSONResponse({"error": self._unknown_vm(request.path_params["vm"])}, status_code=404)
            except LookupError as error:
                return JSONResponse({"error": str(error.args[0])}, status_code=404)
            except (HostError, StartError, CommandError, ValueError) as error:
                return JSONResponse({"error": str(error)}, status_code=409)

        return respond

    async def _status(self, request: Request) -> Any:
        described = self.engine.describe()
        target = self.fabric.target
        return {
            "vms": [{"name": vm["name"], "id": vm["id"], **self._where(vm["id"])} for vm in described["vms"]],
            "hosts": [{"name": name, "imageio": one.pid} for name, one in self.fabric.imageio.items()],
            "nfs": None if target is None else await asyncio.to_thread(target.server.answers),
        }

    def _unknown_vm(self, name: str) -> str:
        names = ", ".join(vm["name"] for vm in self.engine.describe()["vms"])
        return f"there is no VM {name!r}; there are: {names or 'none'}"

    def _host_of(self, vm_id: str) -> GuestHost | None:
        return next((host for host in self.hosts if host.vm_state(vm_id) != "down"), None)

    def _where(self, vm_id: str) -> dict[str, str]:
        host = self._host_of(vm_id)
        return {"state": "down", "host": ""} if host is None else {"state": host.vm_state(vm_id), "host": host.name}

    def _running(self, request: Request) -> tuple[str, GuestHost]:
        name = request.path_params["vm"]
        vm_id, _ = self.engine.find_vm(name)
        host = self._host_of(vm_id)
        if host is None:
            raise ValueError(f"VM {name} is not running; start it through the Engine first")
        return vm_id, host

    async def _vm(self, request: Request) -> Any:
        vm_id, _ = self.engine.find_vm(request.path_params["vm"])
        return {"id": vm_id, **self._where(vm_id)}

    async def _exec(self, request: Request) -> Any:
        vm_id, host = self._running(request)
        asked = await request.json()
        status, out, err = await host.guest_exec(vm_id, asked["argv"])
        return {"status": status, "stdout": base64.b64encode(out).decode(), "stderr": base64.b64encode(err).decode()}

    async def _io(self, request: Request) -> Any:
        vm_id, host = self._running(request)
        asked = await request.json()
        return {"output": await host.block_io(vm_id, asked["target"], asked["command"])}

    async def _fault_kinds(self, request: Request) -> Any:
        return {"kinds": describe()}

    async def _active_faults(self, request: Request) -> Any:
        return {"active": self.faults.status()}

    async def _begin_fault(self, request: Request) -> Any:
        asked = await request.json()
        return {"id": await self.faults.do(asked["name"], asked.get("parameters", {}))}

    async def _clear_faults(self, request: Request) -> Any:
        cleared = await self.faults.clear(request.path_params.get("which", ""))
        return {"cleared": cleared.ids, "remains": cleared.remains}
