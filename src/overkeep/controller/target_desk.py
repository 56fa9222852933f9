# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be asked about targets: how they are, and that another repository behind a name is meant."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass

from overkeep.controller.ports import Ports
from overkeep.controller.store.listings import Listed
from overkeep.controller.target import Target
from overkeep.errors import Conflict, OverkeepError
from overkeep.logs import fields
from overkeep.model.capacity import Fill, Space, days_until_full, fill, growth
from overkeep.units import utc_now

WINDOW = dt.timedelta(days=30)  # of samples that the growth is made of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TargetState:
    """A target as the controller sees it now; `error` says why it cannot be used.

    `repository` belongs there, `found` is there: empty for none, None when that cannot be seen. `grows` is in bytes a
    day, None while it is not known. `listed` tells when its points were last listed.
    """

    target: Target
    default: bool
    repository: str
    found: str | None
    error: OverkeepError | None
    space: Space | None
    grows: float | None
    listed: Listed

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
        )
