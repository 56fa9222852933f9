# SPDX-License-Identifier: GPL-3.0-or-later
"""What trying a backup target out from one machine showed, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from overkeep.model.findings import Finding, Verdict
from overkeep.units import MIB, human_size

OWNER = (36, 36)  # vdsm:kvm on hosts; what one writes the others must be able to read and to change
LOW = 0.05  # of the space
SLOW_MS = 100.0  # for a synced small write, of which a backup makes several for each disk


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a target is tried out: bytes that are written at most, and seconds that may pass at most."""

    size: int = 64 * MIB
    seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How a target is, seen from one machine.

    `repository` is the id of what it holds, empty for none. `owner` is the user and group that a new file belonged to.
    `direct` says whether O_DIRECT works. `synced_ms` is the median of the milliseconds that a write of 4 KiB took until
    it was durable. `write_speed` and `read_speed` are bytes a second of `size` bytes, None when there was no room.
    """

    root: str
    source: str
    repository: str
    owner: tuple[int, int]
    direct: bool
    synced_ms: float
    size: int
    write_speed: float | None
    read_speed: float | None
    space: int
    free: int

    @property
    def owned(self) -> bool:
        """Whether files belong to whom they must."""
        return self.owner == OWNER


def finding(name: str, probe: Probe) -> Finding:
    """What a probe says to who only wants to know whether all is well."""
    told = (
        f"It is mounted at {probe.root} and can be written; a small write is durable after {probe.synced_ms:.1f} ms"
        f"{_speeds(probe)}; {human_size(probe.free)} are free"
    )
    verdict, more = Verdict.OK, ""
    if not probe.owned:
        verdict = Verdict.WARNING
        more = (
            f". Files belong to {probe.owner[0]}:{probe.owner[1]} there and must belong to 36:36; "
            "run the service as 36:36, or export with `all_squash,anonuid=36,anongid=36`"
        )
    elif probe.free < LOW * probe.space:
        verdict, more = Verdict.WARNING, ". It is nearly full: free space, or shorten the retention"
    elif probe.synced_ms > SLOW_MS:
        verdict, more = Verdict.WARNING, ". That is slow: look at the load and the disks of the server"
    return Finding(area="target", subject=name, verdict=verdict, text=f"{told}{more}.")


def _speeds(probe: Probe) -> str:
    if probe.write_speed is None or probe.read_speed is None:
        return ""
    direct = "" if probe.direct else " (O_DIRECT does not work there)"
    return f", {probe.write_speed / MIB:.0f} MiB/s are written and {probe.read_speed / MIB:.0f} MiB/s read{direct}"
