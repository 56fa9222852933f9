# SPDX-License-Identifier: GPL-3.0-or-later
"""`/storageconnections`: the exports that the lab's storage domains are said to lie on, and what lies on a domain."""

from __future__ import annotations

import uuid

from ovirtlab.engine.entities.infrastructure import StorageDomain
from ovirtlab.engine.entities.vms import Template, Vm
from ovirtlab.engine.rest import templates, vms
from ovirtlab.engine.rest.documents import Collection, Entity, Value
from ovirtlab.engine.rest.inventory import domain_of, storage_of
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import address

routes = Routes()

_NAMESPACE = uuid.UUID("5f3f6f0e-7f0e-4f0b-8a53-3d1f5c9f8a11")


@routes.get("storageconnections")
async def list_connections(call: Call) -> Collection:
    return _connections(list(call.context.state.storage_domains.values()))


@routes.get("storagedomains/{domain}/storageconnections")
async def list_connections_of_domain(call: Call) -> Collection:
    return _connections([domain_of(call)])


serve_members(routes, "storageconnections/{connection}", list_connections)


@routes.get("storagedomains/{domain}/vms")
async def list_vms_of_domain(call: Call) -> Collection:
    """VMs with disks on the domain; with `unregistered` those that the engine does not know, which the lab has not."""
    domain, state = domain_of(call), call.context.state
    there = [vm for vm in state.vms.values() if any(disk.storage_domain_id == domain.id for disk in state.disks_of(vm))]
    found: list[Vm] = [] if call.flag("unregistered") else there
    return vms.kind(call.context).listing(call, found)


@routes.get("storagedomains/{domain}/templates")
async def list_templates_of_domain(call: Call) -> Collection:
    domain, disks = domain_of(call), call.context.state.disks
    there = [
        item
        for item in call.context.state.templates.values()
        if any(domain.id in disks[key].domain_ids for key in item.attachments if key in disks)
    ]
    found: list[Template] = [] if call.flag("unregistered") else there
    return templates.kind(call.context).listing(call, found)


def _connections(domains: list[StorageDomain]) -> Collection:
    return Collection("storage_connections", "storage_connection", [_show(domain) for domain in domains])


def _show(domain: StorageDomain) -> Entity:
    key = str(uuid.uuid5(_NAMESPACE, domain.id))
    fields: dict[str, Value] = dict(storage_of(domain).fields)
    return Entity("storage_connection", fields, id=key, href=address("storageconnections", key))
