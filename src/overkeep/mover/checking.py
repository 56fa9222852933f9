# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mover finds when it looks at its host: ovirt-imageio, its targets, its certificate."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cryptography import x509

from overkeep.model.findings import Finding, Verdict
from overkeep.mover.imageio import Imageio, ImageioUnreachable, TicketBroken, TicketCancelled, TicketUnknown
from overkeep.repository.looking import Look, Looks
from overkeep.repository.mounts import Mounts
from overkeep.repository.probe import probe
from overkeep.units import utc_now

PATIENCE = 15.0  # seconds; the controller waits a little longer
_NO_TICKET = "00000000-0000-0000-0000-000000000000"
_SOON = dt.timedelta(days=30)


class SelfCheck:
    """The looks of one mover; each failure is one finding, whose sentence says what to do."""

    def __init__(self, imageio: Imageio, mounts: Mounts, *, cert_file: Path) -> None:
        self._imageio = imageio
        self._mounts = mounts
        self._cert_file = cert_file
        self._looks = Looks(patience=PATIENCE)

    def run(self) -> tuple[Finding, ...]:
        """All findings, after `PATIENCE` seconds at most: a server that is down holds who looks at its mount."""
        looks = [
            Look(area="ovirt-imageio", subject="ovirt-imageio", act=self._look_at_imageio),
            *(Look(area="target", subject=name, act=partial(self._look_at_target, name)) for name in self._names),
            Look(area="certificate", subject=self._cert_file.name, act=self._look_at_certificate),
        ]
        return self._looks.at_all(looks)

    @property
    def _names(self) -> list[str]:
        return sorted(self._mounts.names)

    def _look_at_target(self, name: str) -> Iterator[Finding]:
        yield probe(self._mounts, name)

    def _look_at_imageio(self) -> Iterator[Finding]:
        """Ask for a ticket that nobody has: an answer says that tickets can be read.

        Without the control socket copies go through the images API; without that nothing goes.
        """
        try:
            with contextlib.suppress(TicketUnknown):
                self._imageio.ticket(_NO_TICKET)
        except ImageioUnreachable as error:
            with contextlib.suppress(TicketBroken, TicketCancelled):
                self._imageio.touch(_NO_TICKET)
            text = f"{error.message} Until then copies go through its images API, which costs three times the CPU."
            yield _imageio(Verdict.WARNING, text)
        else:
            yield _imageio(Verdict.OK, "Its control socket answers.")

    def _look_at_certificate(self) -> Iterator[Finding]:
        until = x509.load_pem_x509_certificate(self._cert_file.read_bytes()).not_valid_after_utc
        soon = until - utc_now() < _SOON
        verdict, todo = (Verdict.WARNING, ": make a new one with `overkeep admin enrol`") if soon else (Verdict.OK, "")
        text = f"It is valid until {until:%Y-%m-%d}{todo}."
        yield Finding(area="certificate", subject=self._cert_file.name, verdict=verdict, text=text)


def _imageio(verdict: Verdict, text: str) -> Finding:
    return Finding(area="ovirt-imageio", subject="ovirt-imageio", verdict=verdict, text=text)
