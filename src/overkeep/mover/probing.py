# SPDX-License-Identifier: GPL-3.0-or-later
"""Trying a target out on this host when the controller asks: one probe of a target at a time, and in bounds."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from overkeep.errors import Conflict, OverkeepError
from overkeep.model.probes import Probe, Terms
from overkeep.repository.mounts import Mounts
from overkeep.repository.patience import Impatient
from overkeep.repository.probe import measure
from overkeep.units import GIB, MIB

MOST_BYTES = GIB
MOST_SECONDS = 60.0
_EXTRA = 5.0  # seconds for the mount, and for what is written to become durable


class ProbeSilent(OverkeepError):
    """A target did not let itself be tried out in time."""

    code = "probe-silent"
    template = (
        "Target {target!r} did not answer within {seconds} seconds; see that its server runs and can be reached from "
        "this host, and try again."
    )
    retry = True
    status = 503


class ProbeAsked(BaseModel):
    """How a target is to be tried out: bytes and seconds at most, and the repository that should be there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=64 * MIB, ge=MIB, le=MOST_BYTES)
    seconds: float = Field(default=10.0, gt=0, le=MOST_SECONDS)
    repository: str = ""

    @property
    def terms(self) -> Terms:
        """The bounds."""
        return Terms(size=self.size, seconds=self.seconds)

    @property
    def longest(self) -> float:
        """Seconds after which nobody waits any more: it writes as long as it reads, and makes small writes before."""
        return 3 * self.seconds + _EXTRA


class Prober:
    """Tries targets out. One whose server is away holds one thread, however often it is asked for."""

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts
        self._callers = {name: Impatient(most=1) for name in mounts.names}

    def run(self, target: str, asked: ProbeAsked) -> Probe:
        """Try a target out; raises `ProbeSilent`, `Conflict` while another probe runs, and the errors of `measure`."""

        def act() -> Probe:
            return measure(self._mounts, target, terms=asked.terms, repository=asked.repository)

        answer = self._callers[target].begin(act)
        if not answer.begun:
            raise Conflict(what=f"Target {target!r} is tried out already", todo="wait until that is over")
        try:
            return answer.wait(asked.longest)
        except TimeoutError as error:
            raise ProbeSilent(target=target, seconds=f"{asked.longest:g}") from error
