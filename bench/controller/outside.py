# SPDX-License-Identifier: GPL-3.0-or-later
"""Incremental backups of a VM in the lab, with its real movers: how long one takes outside of the copy itself."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.deployment import Deployment, Lab, deployed

_VM = "measured"
_WARM = 1  # backups that are not counted: the first is a full one


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Seconds of each backup: outside of copy and waits, in the Manager's phases, and in the copy."""

    outside: tuple[float, ...]
    engine: tuple[float, ...]
    copying: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of what is neither."""
        return statistics.median(self.outside)


def run(backups: int) -> Outside:
    """Start a lab and the product in it, and back a VM up so many times, with a few changes before each."""
    with tempfile.TemporaryDirectory(prefix="okb-") as folder:
        lab = Lab(Path(folder) / "lab")
        try:
            lab.up("--environment", str(Path(__file__).with_name("outside.yaml")))
            with deployed(lab, Path(folder) / "product") as product:
                return _measured(lab, product, backups)
        finally:
            lab.down()


def _measured(lab: Lab, product: Deployment, backups: int) -> Outside:
    product.overkeep("workload", "create", _VM, "--vm", _VM)
    lab.block_io(_VM, "vda", "write -P 0x11 0 32M")
    spent = [_backed_up(lab, product, number) for number in range(_WARM + backups)][_WARM:]
    outside, engine, copying = zip(*spent, strict=True)
    return Outside(outside=outside, engine=engine, copying=copying)


def _backed_up(lab: Lab, product: Deployment, number: int) -> Sequence[float]:
    lab.block_io(_VM, "vda", f"write -P {number + 1} {number % 32}M 256k")
    [vm] = product.overkeep("backup", _VM, "--json").json()["vms"]
    spent = vm["spent"]
    return spent["other"] + spent["after"], spent["engine"], spent["copying"]
