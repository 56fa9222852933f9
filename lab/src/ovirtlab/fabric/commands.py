# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's door to other programs: argument lists, time limits, and errors that carry all output."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class CommandError(Exception):
    """A program is missing, failed, or took too long; the text has its output."""


def run(command: Sequence[str], *, timeout: float = 20.0) -> str:
    """Run `command` to its end (`timeout` in seconds) and return its standard output; raise `CommandError`."""
    shown = " ".join(command)
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise CommandError(f"`{shown}`: {command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"`{shown}` did not end within {timeout:g} s") from error
    if done.returncode != 0:
        raise CommandError(f"`{shown}` ended with status {done.returncode}: {(done.stderr + done.stdout).strip()}")
    return done.stdout
