# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for jobs by the command that does so: to ask again and again costs a second of the processor each time."""

from __future__ import annotations

from demo.deployment import Deployment


def end(product: Deployment, job: str, *, seconds: float = 240) -> str:
    """Follow a job to its end, at most for so long; the state in which it ended."""
    return str(product.overkeep("job", "follow", job, "--json", expect=None, timeout=seconds).json()["state"])
