# SPDX-License-Identifier: GPL-3.0-or-later
"""`imagetransfers`.

The list is for administrators, a single one for whoever sees its disk. Orders ask for a permit on the whole system, as
the engine is told of no disk or domain in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ovirtlab.engine.access import sees
from ovirtlab.engine.context import Context
from ovirtlab.engine.faults import NotFound, incomplete, malformed
from ovirtlab.engine.records import ImageTransfer
from ovirtlab.engine.rest.backups import read_origin
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import API, Collection, Entity, link_to
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import check_unfiltered
from ovirtlab.engine.state import SYSTEM
from ovirtlab.engine.transfers import commands, session
from ovirtlab.engine.transfers.rules import TransferRequest

_DIRECTIONS = ("upload", "download")
_FORMATS = ("raw", "cow")
_POLICIES = ("legacy", "pause", "cancel")

routes = Routes()


@routes.get("imagetransfers")
async def list_transfers(call: Call) -> Collection:
    check_unfiltered(call)
    found = [show(call.context, item) for item in call.context.state.transfers.values()]
    return Collection("image_transfers", "image_transfer", found)


@routes.post("imagetransfers")
async def add_transfer(call: Call) -> Created:
    request = _read_request(call)
    call.require("edit_disk_properties", ("disk", request.disk_id))
    transfer = await commands.start(call.context, request)
    return Created(lambda: show(call.context, transfer))


@routes.get("imagetransfers/{transfer}")
async def get_transfer(call: Call) -> Entity:
    transfer = call.context.state.transfers.get(call.id("transfer"))
    if transfer is None or (call.filtered and not sees(call.context.state, call.user, on=("disk", transfer.disk_id))):
        raise NotFound(call.segments["transfer"])
    return show(call.context, transfer)


@routes.action("imagetransfers/{transfer}/extend")
async def extend(call: Call) -> Done:
    """Does nothing: only traffic at the daemon keeps a transfer alive."""
    return _order(call, None)


@routes.action("imagetransfers/{transfer}/pause")
async def pause(call: Call) -> Done:
    return _order(call, commands.pause)


@routes.action("imagetransfers/{transfer}/resume")
async def resume(call: Call) -> Done:
    return _order(call, commands.resume)


@routes.action("imagetransfers/{transfer}/cancel")
async def cancel(call: Call) -> Done:
    return _order(call, commands.cancel)


@routes.action("imagetransfers/{transfer}/finalize")
async def finalize(call: Call) -> Done:
    return _order(call, commands.finalize)


def show(context: Context, transfer: ImageTransfer) -> Entity:
    """A transfer as the API gives it: what it was asked for is not told but for the disk, as `image`."""
    return Entity(
        "image_transfer",
        {
            "active": transfer.active,
            "direction": transfer.direction,
            "format": transfer.format,
            "host": link_to("host", transfer.host_id),
            "image": Entity("image", id=transfer.disk_id),
            "inactivity_timeout": transfer.inactivity_timeout,
            "phase": transfer.phase,
            "shallow": transfer.shallow,
            "timeout_policy": transfer.timeout_policy,
            "transferred": transfer.transferred,
            **_urls(context, transfer),
        },
        id=transfer.id,
        href=f"{API}/imagetransfers/{transfer.id}",
    )


def _urls(context: Context, transfer: ImageTransfer) -> dict[str, str]:
    """Where clients reach the data, as long as there is a ticket."""
    if not transfer.ticket_id:
        return {}
    host = context.state.hosts[transfer.host_id]
    engine = urlsplit(context.base_url).hostname or "localhost"
    proxy_port = context.proxy.port if context.proxy else context.state.settings.proxy_port
    return {
        "transfer_url": session.image_url(host.address, host.imageio_port, transfer),
        "proxy_url": session.image_url(engine, proxy_port, transfer),
    }


def _order(call: Call, act: Callable[[Context, ImageTransfer], None] | None) -> Done:
    """Pass an order on; one for a transfer that is not known (any more) succeeds."""
    transfer = call.context.state.transfers.get(call.id("transfer"))
    call.require("create_disk", ("system", SYSTEM))
    if transfer is not None and act is not None:
        act(call.context, transfer)
    return Done()


def _read_request(call: Call) -> TransferRequest:
    body = call.body
    disk_id, image_id = _target(call.context, body)
    return TransferRequest(
        disk_id=disk_id,
        image_id=image_id,
        direction=_word(body, "direction", _DIRECTIONS, default="upload"),
        format=_word(body, "format", _FORMATS, default=""),
        timeout_policy=_word(body, "timeout_policy", _POLICIES, default="legacy"),
        inactivity_timeout=body.integer("inactivity_timeout"),
        shallow=bool(body.flag("shallow")),
        host_id=body.ref("host") or "",
        backup_id=body.ref("backup") or "",
        origin=read_origin(call),
    )


def _target(context: Context, body: Body) -> tuple[str, str]:
    """The disk, and the image of a disk snapshot when one is named."""
    disk_id = body.ref("disk") or body.ref("image")
    if disk_id:
        return disk_id, ""
    image_id = body.ref("snapshot")
    if not image_id:
        raise incomplete("ImageTransfer", "disk.id|snapshot.id|image.id", "add")
    for disk in context.state.disks.values():
        if image_id in (*disk.volumes, disk.image_id):
            return disk.id, image_id
    raise NotFound(image_id)


def _word(body: Body, name: str, words: tuple[str, ...], *, default: str) -> Any:
    """A value of an enumeration; another word is a 400 fault."""
    text = body.text(name)
    if text is None:
        return default
    if text.lower() not in words:
        raise malformed(f"Invalid value '{text}' for {name}: one of {', '.join(words)} is expected.")
    return text.lower()
