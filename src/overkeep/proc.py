# SPDX-License-Identifier: GPL-3.0-or-later
"""The one door to other programs: argument lists, time-outs, and errors that carry all output."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from overkeep.errors import CommandFailed


def run(command: Sequence[str], *, timeout: float, stdin: bytes = b"") -> str:
    """Run `command` to its end and return what it wrote to standard output.

    `timeout` is in seconds. Raises `CommandFailed` with all output when the program is missing, ends with a status
    other than 0, or takes too long.
    """
    shown = " ".join(command)
    try:
        done = subprocess.run(list(command), input=stdin, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise CommandFailed(command=shown, status_code=127, output=f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(command=shown, status_code="none", output=f"no end after {timeout:g} s") from error
    if done.returncode != 0:
        output = (done.stderr + done.stdout).decode(errors="replace").strip()
        raise CommandFailed(command=shown, status_code=done.returncode, output=output)
    return done.stdout.decode(errors="replace")
