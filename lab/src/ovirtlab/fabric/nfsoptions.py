# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount options of nfs(5): which the bridge honours, which say what it does anyway, which it must refuse."""

from __future__ import annotations

from dataclasses import dataclass

# Say nothing that concerns one NFSv3 mount over TCP through FUSE, or only tune the kernel's own client.
_NEUTRAL = frozenset(
    (
        *("defaults", "rw", "async", "_netdev", "nofail", "auto", "noauto", "fg", "intr", "nointr", "tcp"),
        *("noatime", "atime", "relatime", "nodiratime", "nodev", "dev", "nosuid", "suid", "noexec", "exec"),
        *("nolock", "lock", "ac", "noac", "cto", "nocto", "acl", "noacl", "rdirplus", "nordirplus"),
        *("sharecache", "nosharecache", "resvport", "noresvport", "fsc", "nofsc"),
    )
)
_NEUTRAL_WITH_VALUE = frozenset(
    (
        *("rsize", "wsize", "actimeo", "acregmin", "acregmax", "acdirmin", "acdirmax", "lookupcache", "local_lock"),
        *("retry", "addr", "mountaddr", "mounthost", "clientaddr", "nconnect", "max_connect", "namlen"),
    )
)
_FIXED = {"vers": "3", "nfsvers": "3", "proto": "tcp", "mountproto": "tcp", "mountvers": "3", "sec": "sys"}


class BadOption(ValueError):
    """An option is unknown, has a bad value, or asks for what the bridge cannot do."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the bridge is told. `soft_seconds` is None for a hard mount, which never gives up."""

    port: int = 0
    mount_port: int = 0
    soft_seconds: float | None = None
    read_only: bool = False


def parse_options(text: str) -> Options:
    """Read a comma-separated list; the last of contradicting options wins, as in mount(8). Raises `BadOption`."""
    values: dict[str, str | None] = {}
    for word in filter(None, text.split(",")):
        name, equals, value = word.partition("=")
        _check(name, value if equals else None)
        values.pop(name, None)  # so that the order is that of the last mention
        values[name] = value if equals else None
    soft = _last(values, ("hard", "soft", "softerr")) != "hard"
    return Options(
        port=_number(values, "port", 0),
        mount_port=_number(values, "mountport", 0),
        soft_seconds=_soft_seconds(values) if soft else None,
        read_only=_last(values, ("rw", "ro")) == "ro",
    )


def _last(values: dict[str, str | None], names: tuple[str, ...]) -> str:
    return [name for name in (names[0], *values) if name in names][-1]


def _check(name: str, value: str | None) -> None:
    if name in _FIXED:
        if value not in (_FIXED[name], _FIXED[name] + ".0"):
            raise BadOption(f"this mount can only be {name}={_FIXED[name]}, not {name}={value}")
        return
    if name in ("port", "mountport", "timeo", "retrans"):
        _number({name: value}, name, 0)
        return
    if name in _NEUTRAL or name in ("soft", "softerr", "softreval", "hard", "ro"):
        return
    if name in _NEUTRAL_WITH_VALUE or name.startswith("x-"):
        return
    raise BadOption(f"unknown mount option {name!r}")


def _soft_seconds(values: dict[str, str | None]) -> float:
    """After how long a soft mount reports an error: `timeo` is in tenths of a second, resent `retrans` times."""
    return max(0.1, _number(values, "timeo", 600) / 10 * (_number(values, "retrans", 2) + 1))


def _number(values: dict[str, str | None], name: str, default: int) -> int:
    text = values.get(name, str(default))
    if text is None or not text.isdigit():
        raise BadOption(f"the mount option {name} needs a whole number, not {text}")
    return int(text)
