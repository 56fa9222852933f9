# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine knows by its version and configuration: levels, operating systems, network filters and options."""

from __future__ import annotations

from collections.abc import Callable

from ovirtlab.engine.faults import NotFound
from ovirtlab.engine.rest.documents import Collection, Entity, Items, Value
from ovirtlab.engine.rest.routing import Call, Routes
from ovirtlab.engine.rest.shapes import address, version
from ovirtlab.engine.roles import ADMIN_PERMITS, PERMITS
from ovirtlab.engine.timers import Settings, engine_config

routes = Routes()

LEVELS = ("4.2", "4.3", "4.4", "4.5", "4.6", "4.7", "4.8")
CPU_TYPES = ("Intel Nehalem Family", "Intel Westmere Family", "Intel Haswell Family", "AMD EPYC")
SYSTEMS = (("other", "Other OS"), ("other_linux", "Other Linux"), ("rhel_9x64", "Red Hat Enterprise Linux 9.x x64"))

# Values of `engine-config` that the lab acts on and that differ by level, by their names there.
_BY_LEVEL: dict[str, Callable[[Settings, str], object]] = {
    "IsIncrementalBackupSupported": lambda _, level: str(level >= "4.4").lower(),
    "UseHybridBackup": lambda settings, level: str(settings.use_hybrid_backup and level >= "4.7").lower(),
}
_GENERAL = "general"


@routes.get("clusterlevels")
async def list_levels(call: Call) -> Collection:
    return Collection("cluster_levels", "cluster_level", [_show_level(call, level) for level in LEVELS])


@routes.get("clusterlevels/{level}")
async def get_level(call: Call) -> Entity:
    """Types of CPU and all permits there are; a user does not see the CPUs."""
    level = call.segments["level"]
    if level not in LEVELS:
        raise NotFound(call.path)
    return _show_level(call, level)


@routes.get("operatingsystems")
async def list_operating_systems(call: Call) -> Collection:
    # the tag is spelled so in the engine's schema
    return Collection("operation_systems", "operating_system", [_show_system(number) for number in range(len(SYSTEMS))])


@routes.get("operatingsystems/{system}")
async def get_operating_system(call: Call) -> Entity:
    for number in range(len(SYSTEMS)):
        if call.segments["system"] == str(number):
            return _show_system(number)
    raise NotFound(call.path)


@routes.get("networkfilters")
async def list_network_filters(call: Call) -> Collection:
    return _filters(call)


@routes.get("networkfilters/{filter}")
async def get_network_filter(call: Call) -> Entity:
    key = call.id("filter")
    if key not in call.context.state.stored["network_filter"]:
        raise NotFound(call.path)
    return _show_filter(call, key)


@routes.get("clusters/{cluster}/networkfilters")
async def list_network_filters_of_cluster(call: Call) -> Collection:
    if call.id("cluster") not in call.context.state.clusters:
        raise NotFound(call.path)
    return _filters(call)


@routes.get("options/{option}")
async def get_option(call: Call) -> Entity:
    """A value of the engine's configuration, at each level that has one of its own, or at the level asked for."""
    name, wanted = call.segments["option"], call.text("version")
    values = _values(call.context.state.settings, name)
    if wanted:
        values = {level: value for level, value in values.items() if level == wanted}
    if not values:
        raise NotFound(call.path)
    shown = [Entity("system_option_value", {"value": value, "version": level}) for level, value in values.items()]
    fields: dict[str, Value] = {"name": name, "values": Items("system_option_value", shown)}
    return Entity("system_option", fields, id=name, href=address("options", name))


def _values(settings: Settings, name: str) -> dict[str, str]:
    if name in _BY_LEVEL:
        return {level: str(_BY_LEVEL[name](settings, level)) for level in LEVELS}
    times = engine_config(settings)
    if name in times:
        return {_GENERAL: times[name]}
    return {_GENERAL: ",".join(LEVELS)} if name == "SupportedClusterLevels" else {}


def _show_level(call: Call, level: str) -> Entity:
    types = [Entity("cpu_type", {"name": name, "architecture": "x86_64"}) for name in CPU_TYPES]
    fields: dict[str, Value] = {
        "cpu_types": None if call.filtered else Items("cpu_type", types),
        "permits": Items("permit", [show_permit(name) for name in PERMITS]),
    }
    return Entity("cluster_level", fields, id=level, href=address("clusterlevels", level))


def show_permit(name: str) -> Entity:
    """A permit, as it is in itself."""
    fields: dict[str, Value] = {"name": name, "administrative": name in ADMIN_PERMITS}
    return Entity("permit", fields, id=str(PERMITS[name]))


def _show_system(number: int) -> Entity:
    name, text = SYSTEMS[number]
    href = address("operatingsystems", str(number))
    return Entity("operating_system", {"name": name, "description": text}, id=str(number), href=href)


def _filters(call: Call) -> Collection:
    shown = [_show_filter(call, key) for key in call.context.state.stored["network_filter"]]
    return Collection("network_filters", "network_filter", shown)


def _show_filter(call: Call, key: str) -> Entity:
    item = call.context.state.stored["network_filter"][key]
    fields: dict[str, Value] = {"name": item.kept["name"], "version": version(item.kept["level"])}
    return Entity("network_filter", fields, id=key, href=address("networkfilters", key))
