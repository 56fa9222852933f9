from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from overkeep.config import MoverConfig
from overkeep.model.findings import Verdict
from overkeep.mover.checking import SelfCheck
from overkeep.mover.client import MoverClient
from overkeep.mover.imageio import Imageio, TicketCancelled, TicketUnknown
from overkeep.mover.service import MoverService
from overkeep.mover.signing import SignatureRefused
from overkeep.repository.mounts import Mounts

from .conftest import connect
from .pki import Pki

Serve = Callable[..., tuple[MoverService, MoverClient]]


def test_a_mover_tells_what_it_finds(serve: Serve, settings: MoverConfig) -> None:
    """A host on which nothing is right yet but the certificate."""
    _, client = serve(settings.model_copy(update={"target": (no_mount(settings),)}))
    imageio, target, certificate = client.check()
    assert (imageio.area, imageio.verdict) == ("ovirt-imageio", Verdict.FAILED)
    assert "ovirt-imageio" in imageio.text
    assert (target.area, target.subject, target.verdict) == ("target", "nfs1", Verdict.FAILED)
    assert "server:/export" in target.text
    assert (certificate.area, certificate.verdict) == ("certificate", Verdict.WARNING), "it is valid for a day"


def no_mount(settings: MoverConfig):
    return settings.target[0].model_copy(update={"mount_command": ("false",)})


def test_only_the_controller_may_ask(serve: Serve, settings: MoverConfig, pki: Pki) -> None:
    service, _ = serve(settings)
    with connect(pki, service.port, key=Ed25519PrivateKey.generate()) as stranger, pytest.raises(SignatureRefused):
        stranger.check()


def test_health_tells_the_time(serve: Serve, settings: MoverConfig) -> None:
    _, client = serve(settings)
    before = time.time()
    told = client.health().time
    assert told is not None
    assert before - 1 <= told <= time.time() + 1


def test_a_control_socket_that_is_closed_is_a_warning(settings: MoverConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch(_self: Imageio, ticket_id: str) -> None:
        raise TicketCancelled(ticket=ticket_id, reason="no such ticket")

    monkeypatch.setattr(Imageio, "touch", touch)
    imageio = Imageio(control="/nowhere/control", local="/nowhere/local")
    found = SelfCheck(imageio, Mounts(()), cert_file=settings.cert_file).run()[0]
    assert found.verdict is Verdict.WARNING
    assert "/nowhere/control" in found.text
    assert "images API" in found.text


def test_a_host_on_which_all_is_well(settings: MoverConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ticket(_self: Imageio, ticket_id: str) -> None:
        asked.append(ticket_id)
        raise TicketUnknown(ticket=ticket_id)

    (tmp_path / "t").mkdir()
    monkeypatch.setattr(Imageio, "ticket", ticket)
    monkeypatch.setattr(Mounts, "ensure", lambda _self, _name, **_: tmp_path / "t")
    monkeypatch.setattr("overkeep.model.probes.OWNER", (os.getuid(), os.getgid()))
    imageio = Imageio(control="c", local="l")
    found = SelfCheck(imageio, Mounts(settings.target), cert_file=settings.cert_file).run()
    assert [finding.area for finding in found] == ["ovirt-imageio", "target", "certificate"]
    assert {finding.verdict for finding in found[:2]} == {Verdict.OK}
    assert len(asked) == 1
