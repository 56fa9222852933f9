# SPDX-License-Identifier: GPL-3.0-or-later
"""Subcommands of `overkeep-mover`: what the mover does for orders, by hand and without a controller."""

from __future__ import annotations

from overkeep.daemons.mover_commands import compare, copy, digest, merge, verify
from overkeep.daemons.mover_commands.command import Command

COMMANDS: tuple[Command, ...] = (copy, compare, digest, merge, verify)
"""All of them, in the order of the help."""
