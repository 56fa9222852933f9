# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision what is merged into what, as tables of cases."""

from __future__ import annotations

import pytest

from overkeep.blocks.errors import ImageShared, UnsafeImage
from overkeep.blocks.merge.plan import Plan, Run, plan


def chain(names: str) -> dict[str, str | None]:
    """`"abc"`: a is the full image, b is built upon it, c upon b."""
    return dict(zip(names, [None, *names], strict=False))


CASES = {
    "nothing to remove": ("abc", "", "", []),
    "the oldest": ("abc", "a", "", [("ab", None)]),
    "one in the middle": ("abc", "b", "", [("bc", "a")]),
    "the newest": ("abc", "c", "c", []),
    "all but the newest": ("abcd", "abc", "", [("abcd", None)]),
    "all": ("abc", "abc", "cba", []),
    "the two newest": ("abcd", "cd", "dc", []),
    "two runs": ("abcdefg", "bcef", "", [("bcd", "a"), ("efg", "d")]),
    "two runs and the newest": ("abcdef", "acf", "f", [("ab", None), ("cd", "b")]),
    "gone already": ("abc", "xb", "", [("bc", "a")]),
    "an empty folder": ("", "ab", "", []),
}


@pytest.mark.parametrize(("names", "remove", "leaves", "runs"), CASES.values(), ids=CASES.keys())
def test_a_chain(names: str, remove: str, leaves: str, runs: list[tuple[str, str | None]]) -> None:
    expected = tuple(Run(images=tuple(images), base=base) for images, base in runs)
    assert plan(chain(names), remove) == Plan(leaves=tuple(leaves), runs=expected)


def test_two_chains_in_one_folder() -> None:
    found = plan({**chain("abc"), **chain("xyz")}, "abcx")
    assert found == Plan(leaves=tuple("cba"), runs=(Run(images=("x", "y"), base=None),))


def test_a_branch_that_goes_as_a_whole() -> None:
    found = plan({"a": None, "b": "a", "c": "b", "d": "a"}, "bc")
    assert found == Plan(leaves=("c", "b"), runs=())


def test_a_branch_of_which_one_stays() -> None:
    found = plan({"a": None, "b": "a", "c": "b", "d": "b"}, "bd")
    assert found == Plan(leaves=("d",), runs=(Run(images=("b", "c"), base="a"),))


def test_an_image_that_two_others_need_stays() -> None:
    with pytest.raises(ImageShared) as caught:
        plan({"a": None, "b": "a", "c": "b", "d": "b"}, "ab")
    assert caught.value.fields == {"file": "b", "images": "c, d"}


def test_a_backing_image_that_is_not_there_is_a_base_like_any_other() -> None:
    assert plan({"b": "a", "c": "b"}, "b").runs == (Run(images=("b", "c"), base="a"),)


def test_circles_are_refused() -> None:
    with pytest.raises(UnsafeImage):
        plan({"a": "b", "b": "a"}, "ab")
    with pytest.raises(ImageShared):
        plan({"a": "b", "b": "a", "c": "b"}, "ab")


def test_what_goes_first_is_needed_by_nobody() -> None:
    run = Run(images=tuple("abcd"), base=None)
    assert (run.newest, run.removed) == ("d", tuple("cba"))
