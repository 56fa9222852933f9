# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of workloads: what they find, what they leave out, and what is no rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overkeep.model.inventory import Disk, DiskFormat
from overkeep.model.selection import NAMED, BadRule, Candidate, Choice, Rules, choose, leaves_out, rule

WEB = Candidate(id="1", name="web-1", cluster="prod", tags=frozenset({"shop"}), properties={"backup": "gold"})
TEST = Candidate(id="2", name="web-test", cluster="prod", tags=frozenset({"shop", "lab*"}))
DB = Candidate(id="3", name="db", cluster="lab", properties={"backup": ""})
ALL = (DB, TEST, WEB)


def rules(*, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> Rules:
    return Rules(include=tuple(map(rule, include)), exclude=tuple(map(rule, exclude)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name=web-*", "web-1 web-test"),
        ("name=web-?", "web-1"),
        ("name=WEB-*", ""),
        ("name=db", "db"),
        ("name=*", "db web-1 web-test"),
        ("tag=shop", "web-1 web-test"),
        ("tag=lab*", "web-test"),
        ("tag=la?", ""),
        ("cluster=prod", "web-1 web-test"),
        ("cluster=l*", "db"),
        ("property.backup=gold", "web-1"),
        ("property.backup=*", "db web-1"),
        ("property.other=*", ""),
        (" name = web-1 ", "web-1"),
    ],
)
def test_what_a_rule_finds(text: str, found: str) -> None:
    assert " ".join(choice.vm.name for choice in choose(rules(include=(text,)), (), ALL)) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "web-*", "=x", "name=", "name= ", "names=x", "name.x=y", "tag.a=b", "property=x", "property.=x"),
        *('name="x"', "name=[ab]", "tag=a\nb", "NAME=x"),
    ],
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(BadRule, match="write it as"):
        rule(text)


@pytest.mark.parametrize("text", ["name=web-*", "tag=a b", "cluster=C=1", "property.backup=gold", "property.a.b=x"])
def test_a_rule_is_written_as_it_was_read(text: str) -> None:
    assert str(rule(text)) == text


def test_what_is_excluded_stays_out_unless_it_is_named() -> None:
    chosen = choose(rules(include=("tag=shop",), exclude=("name=*-test", "name=db")), ("3",), ALL)
    assert chosen == (
        Choice(vm=DB, taken=True, why=NAMED),
        Choice(vm=WEB, taken=True, why="tag=shop"),
        Choice(vm=TEST, taken=False, why="name=*-test"),
    )


def test_the_tags_to_ask_for() -> None:
    assert rules(include=("tag=a*", "name=x"), exclude=("tag=b", "cluster=c")).tags == {"a*", "b"}


_TEXT = st.text(st.sampled_from("ab*?"), min_size=1, max_size=3)
_RULES = st.lists(_TEXT.map(lambda text: f"name={text}"), max_size=3).map(tuple)
_VMS = st.lists(st.text(st.sampled_from("ab"), min_size=1, max_size=3), max_size=6)


@given(include=_RULES, exclude=_RULES, names=_VMS, picked=st.sets(st.integers(0, 5)))
def test_every_vm_is_decided_once_and_those_named_are_taken(
    include: tuple[str, ...], exclude: tuple[str, ...], names: list[str], picked: set[int]
) -> None:
    vms = [Candidate(id=str(number), name=name, cluster="c") for number, name in enumerate(names)]
    named = {str(number) for number in picked if number < len(vms)}
    chosen = choose(rules(include=include, exclude=exclude), named, vms)
    ids = [choice.vm.id for choice in chosen]
    assert len(ids) == len(set(ids))
    assert named <= {choice.vm.id for choice in chosen if choice.taken}
    for choice in chosen:
        if choice.why != NAMED:
            assert rule(choice.why).finds(choice.vm)
            assert choice.taken == (choice.why in include and not any(rule(text).finds(choice.vm) for text in exclude))


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("scratch*", True),
        ("scratch", False),
        ("d-1", True),
        ("db:scratch*", True),
        ("d?:*", True),
        ("web:scratch*", False),
        ("web:d-1", False),
        ("*", True),
    ],
)
def test_disks_that_are_left_out(pattern: str, left_out: bool) -> None:
    disk = Disk(id="d-1", name="scratch_1", size=1, format=DiskFormat.RAW)
    assert leaves_out((pattern,), "db", disk) is left_out
    assert leaves_out(("other", pattern), "db", disk) is left_out
