# SPDX-License-Identifier: GPL-3.0-or-later
"""All targets of an installation, and what is asked of each of them although some may be away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

from overkeep.config import WatchedTarget
from overkeep.controller.store import Store
from overkeep.controller.targets.target import Target
from overkeep.errors import NotFound, OverkeepError
from overkeep.model.points import RestorePoint
from overkeep.repository.patience import Impatient

PATIENCE = 30.0  # seconds that is waited for a target
GLANCE = 0.2  # seconds that a list waits to learn whether a target answers, which it need not read
FRESH = 120.0  # seconds for which a target that has answered is taken for slow, and not for away

_Value = TypeVar("_Value")
_log = logging.getLogger(__name__)


class TargetSilent(OverkeepError):
    """A target does not answer: its server is away and the mount waits for it."""

    code = "target-silent"
    template = (
        "Target {target!r} has not answered for {seconds:g} seconds; see that its server runs and can be reached, "
        "and try again."
    )
    retry = True
    status = 503


class TargetsAway(OverkeepError):
    """Something may be on a target that cannot be read now."""

    code = "targets-away"
    template = (
        "{what} is on none of the targets that can be read, and {away} cannot be read now ({reason}); "
        "bring it back and try again."
    )
    retry = True
    status = 503


@dataclass(frozen=True, kw_only=True)
class PlacedPoint:
    """A restore point and the target it lies on."""

    point: RestorePoint
    target: Target


@dataclass(frozen=True, kw_only=True)
class Away:
    """A target that could not be asked, and why."""

    target: str
    error: OverkeepError


@dataclass(frozen=True, kw_only=True)
class Survey(Generic[_Value]):
    """What the targets answered, and those that did not."""

    answers: tuple[tuple[Target, _Value], ...]
    away: tuple[Away, ...]

    def require_all(self) -> tuple[tuple[Target, _Value], ...]:
        """The answers; raise the error of the first target that gave none."""
        for one in self.away:
            raise one.error
        return self.answers


class Targets:
    """The targets by name, in the order of the settings. Safe to use from several threads."""

    def __init__(self, settings: tuple[WatchedTarget, ...], store: Store, *, patience: float = PATIENCE) -> None:
        self._store = store
        self._patience = patience
        self._targets = {one.name: Target(one, store.targets) for one in settings}
        self._callers = {name: Impatient() for name in self._targets}
        self._answered: dict[str, float] = {}
        store.workloads.settle_targets(self.default.name)

    def __iter__(self) -> Iterator[Target]:
        return iter(self._targets.values())

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def default(self) -> Target:
        """The first one."""
        return next(iter(self._targets.values()))

    def get(self, name: str) -> Target:
        """The target `name`; raises `NotFound`."""
        if name not in self._targets:
            raise NotFound(kind="target", name=name, how="overkeep targets")
        return self._targets[name]

    def of(self, request: Mapping[str, Any]) -> Target:
        """The target of a job, by its request; jobs of versions that knew only one have the first one."""
        name = request.get("target")
        return self.get(name) if name else self.default

    def had_by(self, workload_id: str) -> tuple[Target, ...]:
        """The targets that a workload was ever backed up to and that are still in the settings."""
        return tuple(
            self._targets[name] for name in self._store.workloads.targets(workload_id) if name in self._targets
        )

    @property
    def home(self) -> str:
        """The id of the repository by which this installation marks what is its own in the Manager.

        It tells installations apart that share a Manager or a target. It is that of the first target when that was
        first used, and stays whatever becomes of the targets; without the data base it is found in the same way.
        """
        return self._home

    @cached_property
    def _home(self) -> str:
        """Asked for once: it never changes."""
        known = self._store.targets.home
        if known is None:
            self.default.readable()
            known = self._store.targets.settle(self.default.repository.id)
        return known

    def ask(self, target: Target, act: Callable[[Target], _Value], *, seconds: float | None = None) -> _Value:
        """Ask one target that is readable something; raises its errors, and `TargetSilent`."""
        return self.in_time(target, partial(_read, target, act), seconds=seconds)

    def in_time(self, target: Target, act: Callable[[], _Value], *, seconds: float | None = None) -> _Value:
        """Run `act`, which may hang on a target, and return what it returns; raises `TargetSilent`.

        At once when the target let somebody wait in vain a short while ago and still does.
        """
        seconds = self._patience if seconds is None else seconds
        try:
            return self._callers[target.name].call(act, seconds=seconds, glance=seconds < self._patience)
        except TimeoutError as error:
            raise TargetSilent(target=target.name, seconds=seconds) from error

    def survey(self, act: Callable[[Target], _Value], *, name: str | None = None) -> Survey[_Value]:
        """Ask all targets, or the one of this name, at the same time."""
        return self._survey(act, name=name, patience=self._patience)

    def away(self, *, name: str | None = None) -> tuple[Away, ...]:
        """The targets, or the one of this name, that do not answer now; waits a moment only.

        One that has answered within two minutes and takes longer now is not among them.
        """
        found = self._survey(lambda _target: None, name=name, patience=min(GLANCE, self._patience))
        return tuple(one for one in found.away if not isinstance(one.error, TargetSilent) or self._is_stale(one.target))

    def _survey(self, act: Callable[[Target], _Value], *, name: str | None, patience: float) -> Survey[_Value]:
        chosen = tuple(self) if name is None else (self.get(name),)
        pending = [(one, self._callers[one.name].begin(partial(_read, one, act))) for one in chosen]
        answers, away = [], []
        for target, answer in pending:
            try:
                answers.append((target, answer.wait(patience)))
                self._answered[target.name] = time.monotonic()
            except TimeoutError:
                away.append(Away(target=target.name, error=TargetSilent(target=target.name, seconds=patience)))
            except OverkeepError as error:
                _log.info("target %s cannot be read: %s", target.name, error)
                away.append(Away(target=target.name, error=error))
        return Survey(answers=tuple(answers), away=tuple(away))

    def _is_stale(self, name: str) -> bool:
        answered = self._answered.get(name)
        return answered is None or time.monotonic() - answered > FRESH


def _read(target: Target, act: Callable[[Target], _Value]) -> _Value:
    target.readable()
    return act(target)
