# SPDX-License-Identifier: GPL-3.0-or-later
"""`/networks/{network}/networklabels`: the label by which hosts would get a network on their interfaces."""

from __future__ import annotations

from ovirtlab.engine.entities.networks import Network
from ovirtlab.engine.faults import NotFound, conflict, incomplete
from ovirtlab.engine.rest.documents import Collection, Entity, link_to
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.nics import network_of
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address

routes = Routes()


@routes.get("networks/{network}/networklabels")
async def list_labels(call: Call) -> Collection:
    network = network_of(call)
    return Collection("network_labels", "network_label", [_show_label(network)] if network.label else [])


@routes.post("networks/{network}/networklabels")
async def add_label(call: Call) -> Created:
    """A label is named by its id; a network has one at most."""
    network, label = network_of(call), call.body.text("id")
    call.require("configure_storage_pool_network", ("network", network.id))
    if not label:
        raise incomplete("NetworkLabel", "id", "add")
    if network.label:
        raise conflict("Cannot label Network. The network is already labeled.")
    network.label = label
    return Created(lambda: _show_label(network))


@routes.delete("networks/{network}/networklabels/{label}")
async def remove_label(call: Call) -> Done:
    network = network_of(call)
    call.require("configure_storage_pool_network", ("network", network.id))
    if network.label != call.segments["label"]:
        raise NotFound(call.path)
    network.label = ""
    return Done()


serve_members(routes, "networks/{network}/networklabels/{label}", list_labels)


def _show_label(network: Network) -> Entity:
    href = address("networks", network.id, "networklabels", network.label)
    return Entity("network_label", {"network": link_to("network", network.id)}, id=network.label, href=href)
