# SPDX-License-Identifier: GPL-3.0-or-later
"""`/datacenters/{id}/quotas` and their limits, as clients read and write them."""

from __future__ import annotations

from collections.abc import Callable

from ovirtlab.engine.faults import NotFound, conflict, incomplete
from ovirtlab.engine.policies import Quota, QuotaLimit
from ovirtlab.engine.rest.documents import Collection, Entity, Value, link_to
from ovirtlab.engine.rest.listing import Kind
from ovirtlab.engine.rest.routing import Call, Created, Done, Routes
from ovirtlab.engine.rest.shapes import address

routes = Routes()

_DEFAULTS = {
    "cluster_hard_limit_pct": 20,
    "cluster_soft_limit_pct": 80,
    "storage_hard_limit_pct": 20,
    "storage_soft_limit_pct": 80,
}


@routes.get("datacenters/{data_center}/quotas")
async def list_quotas(call: Call) -> Collection:
    key = _data_center(call)
    return QUOTAS.listing(call, [quota for quota in call.context.state.quotas.values() if quota.data_center_id == key])


@routes.get("datacenters/{data_center}/quotas/{quota}")
async def get_quota(call: Call) -> Entity:
    return show(call, _quota(call))


@routes.post("datacenters/{data_center}/quotas")
async def add_quota(call: Call) -> Created:
    state, key, name = call.context.state, _data_center(call), call.body.text("name")
    call.require("configure_quota", ("data_center", key))
    if not name:
        raise incomplete("Quota", "name", "add")
    _check_name(call, name)
    quota = Quota(id=state.new_id(), name=name, data_center_id=key, percentages=dict(_DEFAULTS))
    _change(call, quota)
    state.quotas[quota.id] = quota
    return Created(lambda: show(call, quota))


@routes.put("datacenters/{data_center}/quotas/{quota}")
async def update_quota(call: Call) -> Entity:
    quota = _quota(call)
    call.require("configure_quota", ("data_center", quota.data_center_id))
    name = call.body.text("name")
    if name and name != quota.name:
        _check_name(call, name)
        quota.name = name
    _change(call, quota)
    return show(call, quota)


@routes.delete("datacenters/{data_center}/quotas/{quota}")
async def remove_quota(call: Call) -> Done:
    quota = _quota(call)
    call.require("configure_quota", ("data_center", quota.data_center_id))
    del call.context.state.quotas[quota.id]
    return Done()


def _limit_routes(collection: str, kind: str, limits_of: Callable[[Quota], dict[str, QuotaLimit]]) -> None:
    """The limits of one kind of object."""
    pattern = f"datacenters/{{data_center}}/quotas/{{quota}}/{collection}"
    member = f"quota_{'storage' if kind == 'storage_domain' else kind}_limit"

    def shown(quota: Quota, limit: QuotaLimit) -> Entity:
        return _show_limit(quota, limit, collection=collection, kind=kind, member=member)

    @routes.get(pattern)
    async def list_limits(call: Call) -> Collection:
        quota = _quota(call)
        return Collection(f"{member}s", member, [shown(quota, limit) for limit in limits_of(quota).values()])

    @routes.get(f"{pattern}/{{limit}}")
    async def get_limit(call: Call) -> Entity:
        quota = _quota(call)
        limit = limits_of(quota).get(call.id("limit"))
        if limit is None:
            raise NotFound(call.path)
        return shown(quota, limit)

    @routes.post(pattern)
    async def add_limit(call: Call) -> Created:
        quota = _quota(call)
        call.require("configure_quota", ("data_center", quota.data_center_id))
        limit = _read_limit(call, quota, kind)
        if limit.id in limits_of(quota):
            raise conflict("Cannot edit Quota. A limit of this object exists already.")
        limits_of(quota)[limit.id] = limit
        return Created(lambda: shown(quota, limit))

    @routes.delete(f"{pattern}/{{limit}}")
    async def remove_limit(call: Call) -> Done:
        quota = _quota(call)
        call.require("configure_quota", ("data_center", quota.data_center_id))
        if limits_of(quota).pop(call.id("limit"), None) is None:
            raise NotFound(call.path)
        return Done()


_limit_routes("quotastoragelimits", "storage_domain", lambda quota: quota.storage)
_limit_routes("quotaclusterlimits", "cluster", lambda quota: quota.clusters)


def _read_limit(call: Call, quota: Quota, kind: str) -> QuotaLimit:
    body = call.body
    key = body.ref(kind) or quota.id
    if key != quota.id and not call.context.state.has(kind, key):
        raise NotFound(key)
    size = body.number("limit" if kind == "storage_domain" else "memory_limit")
    vcpus = body.integer("vcpu_limit")
    return QuotaLimit(
        id=key,
        name=body.text("name") or "",
        description=body.text("description") or "",
        limit=-1 if size is None else size,
        vcpus=-1 if vcpus is None else vcpus,
    )


def _show_limit(quota: Quota, limit: QuotaLimit, *, collection: str, kind: str, member: str) -> Entity:
    fields: dict[str, Value] = {
        "name": limit.name or None,
        "description": limit.description or None,
        "quota": Entity("quota", id=quota.id, href=_address(quota), reference=True),
        kind: None if limit.id == quota.id else link_to(kind, limit.id),
    }
    if kind == "storage_domain":
        fields |= {"limit": int(limit.limit), "usage": 0.0}
    else:
        fields |= {"memory_limit": limit.limit, "memory_usage": 0.0, "vcpu_limit": limit.vcpus, "vcpu_usage": 0}
    return Entity(member, fields, id=limit.id, href=f"{_address(quota)}/{collection}/{limit.id}")


def show(call: Call, quota: Quota) -> Entity:
    fields: dict[str, Value] = {
        "name": quota.name,
        "description": quota.description,
        **quota.percentages,
        "data_center": link_to("data_center", quota.data_center_id),
    }
    links = ("permissions", "quotaclusterlimits", "quotastoragelimits")
    return Entity("quota", fields, id=quota.id, href=_address(quota), links=links)


QUOTAS: Kind[Quota] = Kind(tag="quotas", member="quota", show=show)


def _address(quota: Quota) -> str:
    return address("datacenters", quota.data_center_id, "quotas", quota.id)


def _change(call: Call, quota: Quota) -> None:
    description = call.body.text("description")
    quota.description = quota.description if description is None else description
    for name in _DEFAULTS:
        value = call.body.integer(name)
        if value is not None:
            quota.percentages[name] = value


def _check_name(call: Call, name: str) -> None:
    if any(quota.name == name for quota in call.context.state.quotas.values()):
        raise conflict("Cannot add Quota. Quota name is already in use.")


def _data_center(call: Call) -> str:
    key = call.id("data_center")
    if key not in call.context.state.data_centers:
        raise NotFound(call.path)
    return key


def _quota(call: Call) -> Quota:
    quota = call.context.state.quotas.get(call.id("quota"))
    if quota is None or quota.data_center_id != call.id("data_center"):
        raise NotFound(call.path)
    return quota
