# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VMs a workload has: those named by hand and those that its rules find; and which disks it leaves out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from overkeep.errors import OverkeepError
from overkeep.model.inventory import Disk


class BadRule(OverkeepError):
    """A rule cannot be read."""

    code = "bad-rule"
    template = (
        "The rule {rule!r} cannot be used: {reason}; write it as `name=web-*`, `tag=prod`, `cluster=Default` or "
        "`property.backup=gold`."
    )
    status = 400


class Trait(StrEnum):
    """What of a VM a rule looks at."""

    NAME = "name"
    TAG = "tag"
    CLUSTER = "cluster"
    PROPERTY = "property"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One trait and a pattern with `*` and `?`; `key` names the custom property.

    Names are compared as they are written. A tag finds also the VMs of the tags below it.
    """

    trait: Trait
    pattern: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.trait}{'.' if self.key else ''}{self.key}={self.pattern}"

    def finds(self, vm: Candidate) -> bool:
        """Whether a VM is meant."""
        match self.trait:
            case Trait.NAME:
                return fnmatchcase(vm.name, self.pattern)
            case Trait.CLUSTER:
                return fnmatchcase(vm.cluster, self.pattern)
            case Trait.TAG:
                return self.pattern in vm.tags
            case Trait.PROPERTY:
                value = vm.properties.get(self.key)
                return value is not None and fnmatchcase(value, self.pattern)


def rule(text: str) -> Rule:
    """Read `trait=pattern`; raise `BadRule`."""
    left, equals, pattern = text.partition("=")
    trait, dot, key = left.strip().partition(".")
    pattern = pattern.strip()
    if not equals or trait not in set(Trait):
        raise BadRule(rule=text, reason=f"a rule begins with one of {', '.join(Trait)} and has a `=`")
    if not pattern or any(character in pattern for character in '"[]\n'):
        raise BadRule(rule=text, reason='its pattern is empty or has one of " [ ]')
    if (trait == Trait.PROPERTY) != bool(dot and key):
        raise BadRule(rule=text, reason="only `property.` is followed by a name, that of the property")
    return Rule(trait=Trait(trait), pattern=pattern, key=key)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What rules look at in a VM; `tags` are those patterns of tags, of the ones asked for, that find it."""

    id: str
    name: str
    cluster: str
    tags: frozenset[str] = frozenset()
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What finds VMs beside those named by hand, and what leaves out some of those found.

    `disks` are patterns `[VM:]DISK` of disks that are left out, of all VMs.
    """

    include: tuple[Rule, ...] = ()
    exclude: tuple[Rule, ...] = ()
    disks: tuple[str, ...] = ()

    @property
    def tags(self) -> frozenset[str]:
        """The patterns of tags that they ask for."""
        return frozenset(each.pattern for each in (*self.include, *self.exclude) if each.trait is Trait.TAG)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A VM that is taken, or left out although a rule finds it; `why` names the rule or says `named`."""

    vm: Candidate
    taken: bool
    why: str


NAMED = "named"


def choose(rules: Rules, picked: Collection[str], candidates: Iterable[Candidate]) -> tuple[Choice, ...]:
    """Decide about all VMs that are named (`picked`, their ids) or found by a rule, in the order of their names.

    What is excluded stays out unless it is named.
    """
    made = (_choice(rules, picked, vm) for vm in candidates)
    return tuple(sorted((choice for choice in made if choice), key=lambda choice: (choice.vm.name, choice.vm.id)))


def _choice(rules: Rules, picked: Collection[str], vm: Candidate) -> Choice | None:
    if vm.id in picked:
        return Choice(vm=vm, taken=True, why=NAMED)
    found = next((each for each in rules.include if each.finds(vm)), None)
    if found is None:
        return None
    against = next((each for each in rules.exclude if each.finds(vm)), None)
    return Choice(vm=vm, taken=against is None, why=str(against or found))


def leaves_out(patterns: Sequence[str], vm_name: str, disk: Disk) -> bool:
    """Whether one of `[VM:]DISK` means a disk, by its name or id."""
    return any(_means(pattern, vm_name, disk) for pattern in patterns)


def _means(pattern: str, vm_name: str, disk: Disk) -> bool:
    vm_pattern, colon, disk_pattern = pattern.rpartition(":")
    if colon and not fnmatchcase(vm_name, vm_pattern):
        return False
    return disk.id == disk_pattern or fnmatchcase(disk.name, disk_pattern)
