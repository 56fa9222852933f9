# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes in bytes and times in UTC, and how people write them."""

from __future__ import annotations

import datetime as dt
import re

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB


def human_size(count: int) -> str:
    """Write `count` bytes with the binary unit that leaves one to four digits before the point."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < KIB:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= KIB
    return f"{size:.1f} TiB"


_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]?)(?:i?B)?", re.IGNORECASE)
_FACTORS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}


def read_size(text: str) -> int:
    """Read a size as people write it (`65536`, `64K`, `1.5 MiB`); units are binary. Raises `ValueError`."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text!r} is not a size such as 65536, 64K or 1.5 MiB")
    count = int(float(found[1]) * _FACTORS[found[2].upper()])
    if not count and float(found[1]):
        raise ValueError(f"{text!r} is less than one byte")
    return count


def align_down(value: int, step: int) -> int:
    """Return the largest multiple of `step` not above `value`."""
    return value - value % step


def align_up(value: int, step: int) -> int:
    """Return the smallest multiple of `step` not below `value`."""
    return -(-value // step) * step


def utc_now() -> dt.datetime:
    """Return the current time, aware, in UTC."""
    return dt.datetime.now(dt.UTC)


def utc_stamp(when: dt.datetime) -> str:
    """Write a time as `20261122T220000Z`, which sorts as text in the order of time."""
    return when.astimezone(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
