"""What a policy says is what its backups do."""

from __future__ import annotations

from typing import Any

from overkeep.model.points import Mode
from overkeep.model.policy import Copying, Policy
from overkeep.model.retention import Retention
from overkeep.mover.orders import CopyOrder
from tests.controller.world import World, disk, succeeded, vm


def give(world: World, **terms: Any) -> None:
    """Let the workload have a policy with these terms, in place of the one it has."""
    policy = Policy(name="p", **terms)
    desk, workload = world.controller.policies, world.controller.workload("demo")
    known = [stored for stored in desk.all() if stored.policy.name == "p"]
    desk.give(workload, desk.update(known[0], policy) if known else desk.create(policy))


def modes(world: World) -> str:
    """F and I, oldest first."""
    return "".join("F" if point.mode is Mode.FULL else "I" for point in world.repository.points())


def test_copies_are_made_as_the_policy_says(world: World) -> None:
    world.add(vm("web", disk("root"), disk("data")))
    world.back_up()
    give(world, copying=Copying(bandwidth=1 << 20, compression="zstd", level=7, cluster_size=1 << 20, read_back=0.25))
    assert succeeded(world.back_up())
    told = [
        (order.bandwidth, order.compression, order.level, order.cluster, order.read_back)
        for order in world.mover.received.values()
        if isinstance(order, CopyOrder)
    ]
    default = CopyOrder.model_fields
    before = tuple(default[name].default for name in ("bandwidth", "compression", "level", "cluster", "read_back"))
    assert told == [before] * 2 + [(1 << 20, "zstd", 7, 1 << 20, 0.25)] * 2


def test_a_full_backup_follows_so_many_incrementals(world: World) -> None:
    world.add(vm("web", disk("root")))
    give(world, full_every=2)
    for _ in range(5):
        assert succeeded(world.back_up())
    assert modes(world) == "FIIFI"
    images = [point.images[0] for point in world.repository.points()]
    assert [image.since_full for image in images] == [0, 1, 2, 0, 1]
    assert images[3].reason == "the policy asks for a full backup after 2 incrementals"
    give(world, full_every=0)
    for _ in range(2):
        assert succeeded(world.back_up())
    assert modes(world) == "FIIFIFF"


def test_a_chain_is_as_long_as_the_policy_allows(world: World) -> None:
    world.add(vm("web", disk("root")))
    give(world, longest_chain=2)
    for _ in range(4):
        assert succeeded(world.back_up())
    assert modes(world) == "FIFI"


def test_the_policy_is_kept_with_the_workload_on_the_target(world: World) -> None:
    world.add(vm("web", disk("root")))
    give(world, retention=Retention(daily=7), full_every=30)
    world.back_up()
    [kept] = world.repository.workloads()
    assert (kept.policy["name"], kept.policy["retention"]["daily"], kept.policy["full_every"]) == ("p", 7, 30)
    world.controller.policies.give(world.controller.workload("demo"), None)
    world.back_up()
    assert world.repository.workloads()[0].policy == {}
