# SPDX-License-Identifier: GPL-3.0-or-later
"""Trying a target out through a whole mover: what it tells, who may ask, and that a dead server holds nobody."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from overkeep.config import MoverConfig
from overkeep.errors import Conflict
from overkeep.model.probes import Probe, Terms
from overkeep.mover import probing
from overkeep.mover.client import MoverClient
from overkeep.mover.errors import MoverError
from overkeep.mover.probing import ProbeAsked, Prober, ProbeSilent
from overkeep.mover.service import MoverService
from overkeep.mover.signing import SignatureRefused
from overkeep.repository.mounts import Mounts
from overkeep.units import MIB

from .conftest import connect
from .pki import Pki

Serve = Callable[..., tuple[MoverService, MoverClient]]


def test_a_mounted_target_is_measured(serve: Serve, settings: MoverConfig, target: Any) -> None:
    _, client = serve(settings.model_copy(update={"target": (target.config,)}))
    found = client.probe("nfs1", Terms(size=2 * MIB, seconds=3), repository=target.repository)
    assert (found.root, found.source, found.repository) == (str(target.root), "server:/nfs1", target.repository)
    assert (found.owner, found.size) == ((os.getuid(), os.getgid()), 2 * MIB)
    assert found.write_speed is not None
    assert found.read_speed is not None
    assert found.space == 256 * MIB
    assert [path.name for path in target.root.iterdir()] == ["overkeep.json"]


def test_a_target_that_cannot_be_mounted_says_why(serve: Serve, settings: MoverConfig) -> None:
    broken = settings.target[0].model_copy(update={"mount_command": ("false",)})
    _, client = serve(settings.model_copy(update={"target": (broken,)}))
    with pytest.raises(MoverError, match="cannot be mounted") as caught:
        client.probe("nfs1", Terms(size=MIB, seconds=1), repository="")
    assert caught.value.fields["code"] == "mount-failed"


def test_only_the_controller_may_ask(serve: Serve, settings: MoverConfig, pki: Pki) -> None:
    service, _ = serve(settings)
    with connect(pki, service.port, key=Ed25519PrivateKey.generate()) as stranger, pytest.raises(SignatureRefused):
        stranger.probe("nfs1", Terms(), repository="")


@pytest.mark.parametrize("terms", [Terms(size=MIB - 1), Terms(size=1 << 40), Terms(seconds=0), Terms(seconds=3600)])
def test_bounds_that_are_none_are_refused(serve: Serve, settings: MoverConfig, terms: Terms) -> None:
    with pytest.raises(ValueError, match=r"size|seconds"):
        ProbeAsked(size=terms.size, seconds=terms.seconds)
    _, client = serve(settings)
    answer = client._call  # past the client's own look at the bounds
    body = f'{{"size": {terms.size}, "seconds": {terms.seconds}}}'.encode()
    with pytest.raises(MoverError, match="probe") as caught:
        answer("POST", "/v1/targets/nfs1/probe", body=body)
    assert caught.value.fields["code"] == "bad-request"


def test_a_server_that_is_away_holds_one_thread(settings: MoverConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, begun = threading.Event(), []

    def hang(*_args: object, **_words: object) -> Probe:
        begun.append(1)
        let_go.wait(60)
        raise AssertionError("nobody waits for this")

    monkeypatch.setattr(probing, "measure", hang)
    monkeypatch.setattr(probing, "_EXTRA", 0.2)
    prober = Prober(Mounts(settings.target))
    asked = ProbeAsked(size=MIB, seconds=0.05)
    try:
        started = time.monotonic()
        with pytest.raises(ProbeSilent, match=r"did not answer within 0\.35 seconds"):
            prober.run("nfs1", asked)
        for _ in range(5):
            with pytest.raises(Conflict, match="tried out already"):
                prober.run("nfs1", asked)
        assert time.monotonic() - started < 5
        assert begun == [1]
    finally:
        let_go.set()
