# SPDX-License-Identifier: GPL-3.0-or-later
"""`/templates/{template}/nics`: the NICs that VMs made from a template begin with, each with an address of its own."""

from __future__ import annotations

from ovirtlab.engine import networks, templates
from ovirtlab.engine.entities.networks import Nic
from ovirtlab.engine.entities.vms import Template
from ovirtlab.engine.faults import NotFound, invalid
from ovirtlab.engine.rest.documents import Collection, Entity, link_to
from ovirtlab.engine.rest.nics import changed, new_nic, show_nic, words
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import cause_of
from ovirtlab.engine.rest.templates import template_of

routes = Routes()

_PERMIT = "configure_template_network"


@routes.get("templates/{template}/nics")
async def list_nics(call: Call) -> Collection:
    return Collection("nics", "nic", [_show(nic) for nic in template_of(call).nics.values()])


@routes.get("templates/{template}/nics/{nic}")
async def get_nic(call: Call) -> Entity:
    return _show(_find(call, template_of(call)))


@routes.post("templates/{template}/nics")
async def add_nic(call: Call) -> Created:
    """A NIC for all VMs that are made from now on."""
    template = template_of(call)
    nic = new_nic(call.context.state, call.body, owner=template.id)
    call.require(_PERMIT, ("template", template.id))
    _check(template, nic, verb="add")
    template.nics[nic.id] = nic
    _tell(call, template, 936, f"{words(nic)} was added to")
    return Created(lambda: _show(nic))


@routes.put("templates/{template}/nics/{nic}")
async def update_nic(call: Call) -> Entity:
    template = template_of(call)
    nic = _find(call, template)
    call.require(_PERMIT, ("template", template.id))
    new = changed(call.context.state, nic, call.body, verb="edit")
    _check(template, new, verb="edit")
    template.nics[nic.id] = new
    _tell(call, template, 940, f"{words(new)} was updated for")
    return _show(new)


@routes.delete("templates/{template}/nics/{nic}")
async def remove_nic(call: Call) -> Done:
    template = template_of(call)
    nic = _find(call, template)
    call.require(_PERMIT, ("template", template.id))
    del template.nics[nic.id]
    _tell(call, template, 938, f"{words(nic)} was removed from")
    return Done()


def _show(nic: Nic) -> Entity:
    return show_nic(nic, link_to("template", nic.vm_id), links=())


def _check(template: Template, nic: Nic, *, verb: str) -> None:
    """Refuse NICs of Blank, which is in no cluster, and a name that another has."""
    if not template.cluster_id:
        raise invalid(f"Cannot {verb} Interface. The relevant Cluster doesn't exist.")
    networks.check_name(template.nics.values(), nic.name, besides=nic.id)


def _tell(call: Call, template: Template, code: int, text: str) -> None:
    cause = cause_of(call)
    templates.tell(call.context, cause, template, code, f"{text} Template {template.name}. (User: {cause.name})")


def _find(call: Call, template: Template) -> Nic:
    nic = template.nics.get(call.id("nic"))
    if nic is None:
        raise NotFound(call.path)
    return nic
