# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked about targets: how they are, and that another repository behind a name is meant."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass
from functools import partial

from overkeep.controller.ports import Ports
from overkeep.controller.records import Failure, ProbeResult
from overkeep.controller.store.listings import Listed
from overkeep.controller.targets.target import Target, TargetDiffers
from overkeep.errors import Conflict, NotFound, OverkeepError
from overkeep.logs import fields
from overkeep.model.capacity import Fill, Space, days_until_full, fill, growth
from overkeep.model.probes import Probe, Terms
from overkeep.mover.errors import MoverError
from overkeep.mover.probing import ProbeAsked
from overkeep.units import utc_now

WINDOW = dt.timedelta(days=30)  # of samples that the growth is made of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TargetState:
    """A target as the controller sees it now; `error` says why it cannot be used.

    `repository` belongs there, `found` is there: empty for none, None when that cannot be seen. `grows` is in bytes a
    day, None while it is not known. `listed` tells when its points were last listed. `probes` are the last ones,
    by host.
    """

    target: Target
    default: bool
    repository: str
    found: str | None
    error: OverkeepError | None
    space: Space | None
    grows: float | None
    listed: Listed
    probes: tuple[ProbeResult, ...] = ()

    @property
    def fill(self) -> Fill | None:
        """How full it is by its marks."""
        return fill(self.space, self.target.marks) if self.space else None

    @property
    def days_left(self) -> float | None:
        """Days until nothing is free."""
        return days_until_full(self.space, self.grows) if self.space else None


class TargetDesk:
    """The targets of the installation."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._targets = ports.targets
        self._store = ports.store

    def all(self) -> tuple[TargetState, ...]:
        """All targets, in the order of the settings."""
        return tuple(self._state(target) for target in self._targets)

    def one(self, name: str) -> TargetState:
        """One target; raises `NotFound`."""
        return self._state(self._targets.get(name))

    def accept(self, name: str, *, found: str) -> TargetState:
        """Take what a target holds now for its repository, if that is still `found` (empty: no repository).

        Raises `Conflict` when it is not, and the errors of the target.
        """
        target = self._targets.get(name)
        now = self._targets.in_time(target, lambda: target.found_at(target.mounted())) or ""
        if now != found:
            what = f"Target {name!r} holds {now or 'no repository'}, not {found or 'none'} any more"
            raise Conflict(what=what, todo="look at it again with `overkeep target show`")
        before = target.known_repository
        accepted = self._targets.in_time(target, target.accept)
        if accepted != before:
            self._store.points.remove_target(name)
            self._store.listings.ask(name, utc_now(), anew=True)
        _log.warning("target accepted %s", fields(target=name, repository=accepted, before=before or "none"))
        return self._state(target)

    def rescan(self, name: str) -> TargetState:
        """Have the points on a target listed anew, with every manifest; it goes on when this returns."""
        target = self._targets.get(name)
        self._store.listings.ask(name, utc_now())
        return self._state(target)

    def probe(self, name: str, *, host: str, terms: Terms) -> ProbeResult:
        """Try a target out from a host, by name, or with an empty one from here; what it shows is kept.

        A target that fails is a result as well. Raises `NotFound` for a target or a host that is not there.
        """
        target = self._targets.get(name)
        act = partial(self._at_host, target, self._host_id(host), terms) if host else partial(self._here, target, terms)
        probe, failure = None, Failure()
        try:
            probe = act()
            self._require_known(target, probe)
        except OverkeepError as error:
            failure = Failure(code=_code(error), text=error.message)
        time = utc_now().isoformat(timespec="milliseconds")
        result = ProbeResult(target=name, host=host, time=time, failure=failure, probe=probe)
        self._store.probes.put(result)
        return result

    def _here(self, target: Target, terms: Terms) -> Probe:
        longest = ProbeAsked(size=terms.size, seconds=terms.seconds).longest
        return self._targets.in_time(target, lambda: target.measure(terms), seconds=longest)

    def _at_host(self, target: Target, host_id: str, terms: Terms) -> Probe:
        mover = self._ports.movers.at(host_id)
        return mover.probe(target.name, terms, repository=target.known_repository)

    def _host_id(self, name: str) -> str:
        for host in self._ports.engine.hosts():
            if host.name == name:
                return host.id
        raise NotFound(kind="host", name=name, how="overkeep movers")

    @staticmethod
    def _require_known(target: Target, probe: Probe) -> None:
        known = target.known_repository
        if known and probe.repository != known:
            found = f"the repository {probe.repository}" if probe.repository else "no repository"
            raise TargetDiffers(target=target.name, path=probe.root, found=found, known=known)

    def _state(self, target: Target) -> TargetState:
        found, error, space = None, None, None
        try:
            found = self._targets.in_time(target, lambda: target.found_at(target.mounted())) or ""
            space = self._targets.ask(target, Target.space)
        except OverkeepError as trouble:
            error = trouble
        return TargetState(
            target=target,
            default=target is self._targets.default,
            repository=target.known_repository,
            found=found,
            error=error,
            space=space,
            grows=growth(self._store.capacity.since(target.name, utc_now() - WINDOW)),
            listed=self._store.listings.of(target.name),
            probes=self._store.probes.of(target.name),
        )


def _code(error: OverkeepError) -> str:
    """The code of an error; of one that a mover told of and that has no class here, the mover's."""
    return str(error.fields["code"]) if isinstance(error, MoverError) else error.code
