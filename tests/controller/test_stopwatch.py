# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as a wait for the Manager."""

from __future__ import annotations

from overkeep.controller.activities.stopwatch import Stopwatch


def test_waits_count_once_and_not_while_somebody_copies() -> None:
    now = [0.0]
    watch = Stopwatch(clock=lambda: now[0])
    now[0] = 5
    with watch.waiting():
        now[0] = 6
        with watch.waiting():
            now[0] = 8
        with watch.copying():
            now[0] = 20
        now[0] = 21
    now[0] = 30
    assert watch.take() == 4
    assert watch.take() == 0
    with watch.waiting():
        now[0] = 32
        assert watch.take() == 2, "of a wait that lasts"
        now[0] = 33
    assert watch.take() == 1
