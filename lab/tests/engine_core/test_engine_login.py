# SPDX-License-Identifier: GPL-3.0-or-later
"""Logging in, staying in and getting out, as the SDK and plain clients do it."""

from typing import Any

import httpx
import ovirtsdk4
import pytest

FORM = {"grant_type": "password", "scope": "ovirt-app-api", "username": "admin@internal", "password": "secret"}
JSON = {"Accept": "application/json"}


def post(lab: Any, path: str, form: dict[str, str], headers: dict[str, str] = JSON) -> httpx.Response:
    return httpx.post(f"{lab.url}/ovirt-engine/{path}", data=form, headers=headers)


def test_token(lab: Any) -> None:
    answer = post(lab, "sso/oauth/token", FORM).json()
    assert answer["token_type"] == "bearer"
    assert answer["scope"] == "ovirt-app-api"
    assert int(answer["exp"]) > 1_600_000_000_000
    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    assert httpx.get(f"{lab.url}/ovirt-engine/api", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"password": "wrong"}, "access_denied"),
        ({"username": "nobody@internal"}, "access_denied"),
        ({"password": ""}, "invalid_request"),
        ({"grant_type": "magic"}, "unsupported_grant_type"),
    ],
)
def test_refused_token(lab: Any, change: dict[str, str], code: str) -> None:
    answer = post(lab, "sso/oauth/token", {**FORM, **change})
    assert answer.status_code == 400
    assert answer.json()["error_code"] == code
    foreign = post(lab, "sso/oauth/token", {**FORM, **change, "scope": "openid"})
    assert foreign.json()["error"] == code


def test_sdk_names_the_refusal(lab: Any) -> None:
    connection = lab.connect(password="wrong")
    with pytest.raises(ovirtsdk4.AuthError, match="access_denied"):
        connection.test(raise_exception=True)


def test_token_info(lab: Any) -> None:
    token = post(lab, "sso/oauth/token", FORM).json()["access_token"]
    scope = "ovirt-ext=token-info:validate"
    assert post(lab, "sso/oauth/token-info", {"token": token, "scope": scope}).json() == {}
    assert post(lab, "sso/oauth/token-info", {"token": "x", "scope": scope}).status_code == 400
    unsaid = post(lab, "sso/oauth/token-info", {"token": token})
    assert (unsaid.status_code, unsaid.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["services/sso-logout", "sso/oauth/revoke"])
def test_logout(lab: Any, path: str) -> None:
    token = post(lab, "sso/oauth/token", FORM).json()["access_token"]
    assert post(lab, path, {"token": token, "scope": "ovirt-app-api"}).json() == {}
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{lab.url}/ovirt-engine/api", headers=headers).status_code == 401


def test_unauthorized_shape(lab: Any) -> None:
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "Basic no"}):
        answer = httpx.get(f"{lab.url}/ovirt-engine/api/vms", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="RESTAPI"'


def test_sdk_logs_in_again_when_its_token_ends(lab: Any, system: Any) -> None:
    assert system.vms_service().list()
    lab.engine.sessions.end_all()
    assert system.vms_service().list()


def test_tokens_end_by_time(lab: Any) -> None:
    lab.engine.state.settings.token_lifetime = 2  # a tenth of a real second at this scale
    token = post(lab, "sso/oauth/token", FORM).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    lab.wait(lambda: httpx.get(f"{lab.url}/ovirt-engine/api", headers=headers).status_code == 401)


def test_services_without_login(lab: Any) -> None:
    health = httpx.get(f"{lab.url}/ovirt-engine/services/health")
    assert health.text == "DB Up!Welcome to Health Status!"
    path = "services/pki-resource?resource=ca-certificate&format=X509-PEM-CA"
    assert "BEGIN CERTIFICATE" in httpx.get(f"{lab.url}/ovirt-engine/{path}").text
