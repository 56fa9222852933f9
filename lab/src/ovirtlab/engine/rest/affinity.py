# SPDX-License-Identifier: GPL-3.0-or-later
"""`/affinitylabels` and the affinity groups of clusters, with the VMs and hosts in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeAlias

from ovirtlab.engine.entities.infrastructure import HostEntity
from ovirtlab.engine.entities.vms import Vm
from ovirtlab.engine.faults import NotFound, conflict, incomplete, invalid
from ovirtlab.engine.policies import AffinityGroup, AffinityLabel, AffinityRule
from ovirtlab.engine.rest.bodies import Body
from ovirtlab.engine.rest.documents import Collection, Entity, Items, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.members import serve_members
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address
from ovirtlab.engine.state import SYSTEM

routes = Routes()

Members: TypeAlias = "dict[str, None]"
_LABEL = "affinity_label"


@routes.get("affinitylabels")
async def list_labels(call: Call) -> Collection:
    return LABELS.listing(call, call.context.state.affinity_labels.values())


@routes.get("affinitylabels/{label}")
async def get_label(call: Call) -> Entity:
    return show_label(call, _label(call))


@routes.post("affinitylabels")
async def add_label(call: Call) -> Created:
    state, name = call.context.state, call.body.text("name")
    call.require("tag_management", ("system", SYSTEM))
    if not name:
        raise incomplete("AffinityLabel", "name", "add")
    if any(label.name == name for label in state.affinity_labels.values()):
        raise conflict("Cannot create affinity label. Label with the same name already exists.")
    implicit = bool(call.body.flag("has_implicit_affinity_group"))
    label = AffinityLabel(id=state.new_id(), name=name, implicit=implicit)
    label.vms = {_known(call, item, "vm"): None for item in call.body.list("vms", "vm")}
    label.hosts = {_known(call, item, "host"): None for item in call.body.list("hosts", "host")}
    state.affinity_labels[label.id] = label
    return Created(lambda: show_label(call, label))


@routes.put("affinitylabels/{label}")
async def update_label(call: Call) -> Entity:
    label = _label(call)
    call.require("tag_management", ("system", SYSTEM))
    label.name = call.body.text("name") or label.name
    implicit = call.body.flag("has_implicit_affinity_group")
    label.implicit = label.implicit if implicit is None else implicit
    return show_label(call, label)


@routes.delete("affinitylabels/{label}")
async def remove_label(call: Call) -> Done:
    label = _label(call)
    call.require("tag_management", ("system", SYSTEM))
    del call.context.state.affinity_labels[label.id]
    for group in call.context.state.affinity_groups.values():
        group.vm_labels.pop(label.id, None)
        group.host_labels.pop(label.id, None)
    return Done()


@routes.get("clusters/{cluster}/affinitygroups")
async def list_groups(call: Call) -> Collection:
    cluster_id = _cluster(call)
    mine = [group for group in call.context.state.affinity_groups.values() if group.cluster_id == cluster_id]
    return GROUPS.listing(call, mine)


@routes.get("clusters/{cluster}/affinitygroups/{group}")
async def get_group(call: Call) -> Entity:
    return show_group(call, _group(call))


@routes.post("clusters/{cluster}/affinitygroups")
async def add_group(call: Call) -> Created:
    state, name, cluster_id = call.context.state, call.body.text("name"), _cluster(call)
    call.require("manipulate_affinity_groups", ("cluster", cluster_id))
    if not name:
        raise incomplete("AffinityGroup", "name", "add")
    if any(group.name == name and group.cluster_id == cluster_id for group in state.affinity_groups.values()):
        raise conflict("Cannot add Affinity Group. Affinity Group name already exists.")
    group = AffinityGroup(id=state.new_id(), name=name, cluster_id=cluster_id)
    _change(call, group)
    state.affinity_groups[group.id] = group
    return Created(lambda: show_group(call, group))


@routes.put("clusters/{cluster}/affinitygroups/{group}")
async def update_group(call: Call) -> Entity:
    group = _group(call)
    call.require("manipulate_affinity_groups", ("cluster", group.cluster_id))
    group.name = call.body.text("name") or group.name
    _change(call, group)
    return show_group(call, group)


@routes.delete("clusters/{cluster}/affinitygroups/{group}")
async def remove_group(call: Call) -> Done:
    group = _group(call)
    call.require("manipulate_affinity_groups", ("cluster", group.cluster_id))
    del call.context.state.affinity_groups[group.id]
    return Done()


def _member_routes(
    pattern: str, kind: str, members_of: Callable[[Call], Members], *, tag: str, named: bool = True
) -> None:
    """The VMs, hosts or labels in a label or a group; those in a group come with their names."""

    @routes.get(pattern)
    async def list_members(call: Call) -> Collection:
        return Collection(tag, kind, [_link(call, kind, key, named=named) for key in members_of(call)])

    serve_members(routes, f"{pattern}/{{member}}", list_members)

    @routes.post(pattern)
    async def add_member(call: Call) -> Created:
        call.require("manipulate_affinity_groups", ("system", SYSTEM))
        members, key = members_of(call), _known(call, call.body, kind)
        if key in members:
            raise conflict("Cannot edit affinity label. The entity is already attached to this label.")
        members[key] = None
        return Created(lambda: link_to(kind, key) or Entity(kind))

    @routes.delete(f"{pattern}/{{member}}")
    async def remove_member(call: Call) -> Done:
        call.require("manipulate_affinity_groups", ("system", SYSTEM))
        members = members_of(call)
        if call.id("member") not in members:
            raise NotFound(call.path)
        del members[call.id("member")]
        return Done()


_GROUP = "clusters/{cluster}/affinitygroups/{group}"
_member_routes("affinitylabels/{label}/vms", "vm", lambda call: _label(call).vms, tag="vms", named=False)
_member_routes("affinitylabels/{label}/hosts", "host", lambda call: _label(call).hosts, tag="hosts", named=False)
_member_routes(f"{_GROUP}/vms", "vm", lambda call: _group(call).vms, tag="vms")
_member_routes(f"{_GROUP}/hosts", "host", lambda call: _group(call).hosts, tag="hosts")
_member_routes(f"{_GROUP}/vmlabels", _LABEL, lambda call: _group(call).vm_labels, tag="affinity_labels")
_member_routes(f"{_GROUP}/hostlabels", _LABEL, lambda call: _group(call).host_labels, tag="affinity_labels")


def _link(call: Call, kind: str, key: str, *, named: bool) -> Entity:
    link = link_to(kind, key) or Entity(kind)
    return dataclasses.replace(link, fields={"name": _place(call, kind)[key].name}) if named else link


def _place(call: Call, kind: str) -> Mapping[str, AffinityLabel | Vm | HostEntity]:
    state = call.context.state
    places: dict[str, Mapping[str, AffinityLabel | Vm | HostEntity]] = {
        _LABEL: state.affinity_labels,
        "vm": state.vms,
        "host": state.hosts,
    }
    return places[kind]


@routes.get("vms/{vm}/affinitylabels")
async def list_labels_of_vm(call: Call) -> Collection:
    vm = call.context.state.vm(call.id("vm"))
    return LABELS.listing(call, [label for label in call.context.state.affinity_labels.values() if vm.id in label.vms])


@routes.get("hosts/{host}/affinitylabels")
async def list_labels_of_host(call: Call) -> Collection:
    key = call.context.state.host(call.id("host")).id
    return LABELS.listing(call, [label for label in call.context.state.affinity_labels.values() if key in label.hosts])


def show_label(call: Call, label: AffinityLabel) -> Entity:
    fields: dict[str, Value] = {
        "name": label.name,
        "has_implicit_affinity_group": label.implicit,
        "read_only": False,
    }
    return Entity(
        "affinity_label", fields, id=label.id, href=address("affinitylabels", label.id), links=("hosts", "vms")
    )


def show_group(call: Call, group: AffinityGroup) -> Entity:
    """With its members, who also stand in collections of their own."""
    fields: dict[str, Value] = {
        "name": group.name,
        "description": group.description,
        "broken": _broken(call, group),
        "enforcing": group.vms_rule.enforcing,
        "positive": group.vms_rule.positive,
        "priority": group.priority,
        "vms_rule": _show_rule("vms_rule", group.vms_rule),
        "hosts_rule": _show_rule("hosts_rule", group.hosts_rule),
        "cluster": link_to("cluster", group.cluster_id),
        "vms": Items("vm", [link_to("vm", key) for key in group.vms]),
        "hosts": Items("host", [link_to("host", key) for key in group.hosts]),
        "vm_labels": Items("affinity_label", [link_to("affinity_label", key) for key in group.vm_labels]),
        "host_labels": Items("affinity_label", [link_to("affinity_label", key) for key in group.host_labels]),
    }
    href = address("clusters", group.cluster_id, "affinitygroups", group.id)
    return Entity("affinity_group", fields, id=group.id, href=href, links=("hostlabels", "hosts", "vmlabels", "vms"))


def _show_rule(tag: str, rule: AffinityRule) -> Entity:
    fields: dict[str, Value] = {
        "enabled": rule.positive is not None,
        "enforcing": rule.enforcing,
        "positive": rule.positive is True,
    }
    return Entity(tag, fields)


def _broken(call: Call, group: AffinityGroup) -> bool:
    """Whether the running VMs of the group are not where its rules want them."""
    places = [vm.host_id for vm in call.context.state.vms.values() if vm.id in group.vms and vm.host_id]
    apart, together = len(set(places)) == len(places), len(set(places)) <= 1
    among_vms = len(places) > 1 and group.vms_rule.broken(together if group.vms_rule.positive else not apart)
    inside = any(group.hosts_rule.broken(place in group.hosts) for place in places)
    return among_vms or (bool(group.hosts) and inside)


LABELS: Kind[AffinityLabel] = Kind(tag="affinity_labels", member="affinity_label", show=show_label)
GROUPS: Kind[AffinityGroup] = Kind(tag="affinity_groups", member="affinity_group", show=show_group)


def _change(call: Call, group: AffinityGroup) -> None:
    body = call.body
    description, priority = body.text("description"), body.number("priority")
    group.description = group.description if description is None else description
    group.priority = group.priority if priority is None else priority
    vms_rule = body.child("vms_rule")
    _change_rule(group.vms_rule, body if vms_rule is None else vms_rule)
    _change_rule(group.hosts_rule, body.child("hosts_rule") or Body())
    for name, member in (("vms", "vm"), ("hosts", "host"), ("vm_labels", _LABEL), ("host_labels", _LABEL)):
        if name in body:
            setattr(group, name, {_known(call, item, member): None for item in body.list(name, member)})


def _change_rule(rule: AffinityRule, body: Body) -> None:
    positive, enforcing = body.flag("positive"), body.flag("enforcing")
    if body.flag("enabled") is False:
        rule.positive = None
    elif positive is not None:
        rule.positive = positive
    rule.enforcing = rule.enforcing if enforcing is None else enforcing


def _known(call: Call, body: Body, kind: str) -> str:
    """The id of the VM, host or label that is named; unknown is refused."""
    key = body.id
    if key is None:
        raise incomplete(kind.title().replace("_", ""), "id", "add")
    if key not in _place(call, kind):
        raise invalid(f"Cannot edit affinity label. The {kind.replace('_', ' ')} does not exist.")
    return key


def _cluster(call: Call) -> str:
    key = call.id("cluster")
    if key not in call.context.state.clusters:
        raise NotFound(call.path)
    return key


def _label(call: Call) -> AffinityLabel:
    label = call.context.state.affinity_labels.get(call.id("label"))
    if label is None:
        raise NotFound(call.path)
    return label


def _group(call: Call) -> AffinityGroup:
    group = call.context.state.affinity_groups.get(call.id("group"))
    if group is None or group.cluster_id != call.id("cluster"):
        raise NotFound(call.path)
    return group
