# SPDX-License-Identifier: GPL-3.0-or-later
"""The imageio daemons of hosts: unmodified, over TLS, each with its own tickets, which a restart loses."""

from __future__ import annotations

import http.client
import json
import ssl

import pytest

from ovirtlab.fabric.assembly import Fabric
from ovirtlab.fabric.imageio import Imageio
from ovirtlab.fabric.unixhttp import UnixConnection

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("fabric")]


def tickets(daemon: Imageio, method: str, ticket: dict[str, object]) -> int:
    connection = UnixConnection(daemon.control_socket, timeout=90)
    try:
        body = json.dumps(ticket) if method == "PUT" else None
        connection.request(method, f"/tickets/{ticket['uuid']}", body=body)
        return connection.getresponse().status
    finally:
        connection.close()


def ticket(name: str) -> dict[str, object]:
    return {"uuid": name, "url": "nbd:unix:/none", "ops": ["read"], "size": 0, "timeout": 60}


def test_each_host_answers_over_tls_with_its_own_certificate(fabric: Fabric):
    context = ssl.create_default_context(cafile=fabric.authority.certificate)
    for daemon in fabric.imageio.values():
        connection = http.client.HTTPSConnection(daemon.address, daemon.port, context=context, timeout=90)
        connection.request("GET", "/images/none")
        assert connection.getresponse().status == 403
        connection.close()


def test_a_ticket_of_one_host_is_not_known_on_another(fabric: Fabric):
    first, second = fabric.imageio.values()
    assert tickets(first, "PUT", ticket("one")) == 200
    assert tickets(first, "GET", ticket("one")) == 200
    assert tickets(second, "GET", ticket("one")) == 404
    assert tickets(first, "DELETE", ticket("one")) == 204


@pytest.mark.parametrize("killed", [True, False])
def test_a_restart_loses_the_tickets(fabric: Fabric, *, killed: bool):
    daemon = fabric.imageio["host1"]
    tickets(daemon, "PUT", ticket("lost"))
    if killed:
        daemon.kill()
        assert not daemon.answers()
    daemon.restart()
    assert tickets(daemon, "GET", ticket("lost")) == 404
