# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines on hosts in memory as the pytest plug-in gives them, and the faults that reach them."""

from __future__ import annotations

import statistics
import time

import httpx
import ovirtsdk4
import pytest

from ovirtlab import environment as environments
from ovirtlab.engine_only import served
from ovirtlab.remote import LabError

TESTS = """
import httpx

def test_a_client(ovirtlab_engine):
    lab = ovirtlab_engine
    def get():
        return httpx.get(f"{lab.url}/vms", auth=(lab.username, lab.password)).status_code
    assert get() == 200
    with lab.faults.during("call-fail", path="vms", status=503):
        assert get() == 503
    assert get() == 200

def test_an_environment(ovirtlab_engine_factory, tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text("{hosts: [{name: h1}], time_scale: 50, password: secret}")
    assert ovirtlab_engine_factory(environment=path).password == "secret"
"""

pytest_plugins = ["pytester"]


def test_it_is_up_at_once_and_speaks_with_the_sdk():
    begin = time.monotonic()
    with served() as lab:
        assert time.monotonic() - begin < 2
        connection = ovirtsdk4.Connection(url=lab.url, username=lab.username, password=lab.password)
        names = [vm.name for vm in connection.system_service().vms_service().list()]
        assert names == [vm.name for vm in environments.default().vms]
        connection.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(lab.url)


def test_calls_on_one_connection_are_not_held_up_by_acknowledgements():
    with served() as lab, httpx.Client(base_url=f"{lab.url}/", auth=(lab.username, lab.password)) as client:
        seconds = []
        for _ in range(50):
            begin = time.monotonic()
            assert client.get("datacenters").status_code == 200
            seconds.append(time.monotonic() - begin)
        assert statistics.median(seconds) < 0.03  # each would take 40 ms; a busy machine holds up some


def test_faults_of_hosts_are_refused_where_there_are_none():
    with served() as lab:
        for name, parameters in (("vm-kill", {"vm": "web"}), ("nfs-kill", {}), ("host-kill", {"host": "host1"})):
            with pytest.raises(LabError):
                lab.faults.do(name, **parameters)
        assert lab.faults.do("tokens-expire") == ""
        assert lab.faults.active() == []


def test_an_environment_that_cannot_be_is_told_to_the_one_who_asked():
    wrong = environments.parse("{hosts: [{name: h1}], settings: {none: 1}}", origin="test")
    with pytest.raises(ValueError, match="none"), served(wrong):
        pass


def test_the_plug_in_gives_engines(pytester: pytest.Pytester):
    pytester.makepyfile(TESTS)
    pytester.runpytest_subprocess("-p", "ovirtlab.pytest", timeout=60).assert_outcomes(passed=2)
