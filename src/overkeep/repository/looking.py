# SPDX-License-Identifier: GPL-3.0-or-later
"""Running looks side by side: none waits for another, and none that hangs keeps the others from being told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from overkeep.errors import OverkeepError
from overkeep.model.findings import Finding, Verdict

PATIENCE = 30.0  # seconds; a hard mount whose server is down waits for ever

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look; `act` finds, and may raise typed errors, whose sentence is then what was found."""

    area: str
    subject: str
    act: Callable[[], Iterable[Finding]]

    def found(self, verdict: Verdict, text: str) -> Finding:
        """A finding of this look."""
        return Finding(area=self.area, subject=self.subject, verdict=verdict, text=text)


class Looks:
    """Looks that are run again and again. One that hangs is not begun anew: threads would become more and more."""

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], _Running] = {}

    def at_all(self, looks: Sequence[Look]) -> tuple[Finding, ...]:
        """What all looks find, in their order; one that does not end within `patience` seconds has failed."""
        with self._lock:
            running = [self._begun(look) for look in looks]
        deadline = time.monotonic() + self._patience
        return tuple(finding for each in running for finding in each.findings(deadline, self._patience))

    def _begun(self, look: Look) -> _Running:
        key = (look.area, look.subject)
        before = self._running.get(key)
        if before is None or not before.hangs:
            self._running[key] = _Running(look)
        return self._running[key]


class _Running:
    """A look in a thread of its own, which is left alone when it hangs."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._found: tuple[Finding, ...] = ()
        self._thread = threading.Thread(target=self._run, name=f"look-{look.area}", daemon=True)
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def findings(self, deadline: float, patience: float) -> tuple[Finding, ...]:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            text = f"It did not answer within {patience:g} s; check the network and the service behind it."
            return (self._look.found(Verdict.FAILED, text),)
        return self._found

    def _run(self) -> None:
        try:
            self._found = tuple(self._look.act())
        except OverkeepError as error:
            self._found = (self._look.found(Verdict.FAILED, error.message),)
        except Exception:  # noqa: BLE001 - the outermost of a thread: logged, and told as a fault of ours
            _log.exception("the look at %s %s failed", self._look.area, self._look.subject)
            unexpected = OverkeepError(reason="a look at the installation failed")
            self._found = (self._look.found(Verdict.FAILED, unexpected.message),)
