# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of flags, also of more than are looked at in one go."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overkeep.blocks import flags


@given(values=st.lists(st.booleans(), max_size=40), most=st.integers(1, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_runs(monkeypatch: pytest.MonkeyPatch, values: list[bool], most: int) -> None:
    monkeypatch.setattr(flags, "_MOST", most)
    found = list(flags.runs(np.array(values, bool)))
    assert [any(start <= at < end for start, end in found) for at in range(len(values))] == values
    assert all(end < later for (_, end), (later, _) in pairwise(found)), "each is as long as can be"


@given(values=st.lists(st.integers(0, 2), max_size=40), most=st.integers(1, 9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_runs_of_a_number(monkeypatch: pytest.MonkeyPatch, values: list[int], most: int) -> None:
    monkeypatch.setattr(flags, "_MOST", most)
    numbers = np.array(values, np.uint8)
    assert list(flags.runs(numbers, equal=2)) == list(flags.runs(numbers == 2))
    assert list(flags.runs(numbers)) == list(flags.runs(numbers != 0))
