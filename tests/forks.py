# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of tests that begin in no time, as forks of one that has imported what they need."""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
_preloaded: list[str] = []


def preload(module: str) -> None:
    """Have a module imported once for all; a process may have only one list of these, whoever adds to it."""
    _preloaded.append(module)
    FORKS.set_forkserver_preload(_preloaded)
