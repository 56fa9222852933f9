# SPDX-License-Identifier: GPL-3.0-or-later
"""What is mounted in this mount namespace, as the kernel tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of mountinfo (proc(5)): `device` is `major:minor`, `source` what was mounted."""

    device: str
    path: Path
    kind: str
    source: str


def parse(text: str) -> tuple[Mount, ...]:
    """Read mountinfo, in the order of mounting."""
    return tuple(_line(line) for line in text.splitlines() if line)


def _line(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    fields, kind_and_source = before.split(" "), after.split(" ")
    return Mount(
        device=fields[2], path=Path(_plain(fields[4])), kind=kind_and_source[0], source=_plain(kind_and_source[1])
    )


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def current() -> tuple[Mount, ...]:
    """Everything that is mounted now."""
    return parse(MOUNTINFO.read_text())


def at(path: Path) -> Mount | None:
    """Return the topmost mount on `path` (absolute), if there is one. Does not touch the file system there."""
    found = [mount for mount in current() if mount.path == path]
    return found[-1] if found else None
