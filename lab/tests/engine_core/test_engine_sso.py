# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSO towards registered programs, kept logins, and how logins end."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ovirtlab.environment import parse

from .conftest import ENVIRONMENT, Lab, serve

MORE = """
groups: [{name: operators, roles: [{role: UserVmManager, vm: db}]}]
users: [{name: joe@internal, password: pw, groups: [operators]}]
sso_clients:
  - {client_id: portal, secret: s3cret, callback_prefix: "https://portal.example/"}
  - {client_id: plain, secret: s3cret, encrypted_userinfo: false}
"""
JSON = {"Accept": "application/json"}
PORTAL = {"client_id": "portal", "client_secret": "s3cret"}
CALLBACK = "https://portal.example/back"
ASKED = {
    "client_id": "portal",
    "redirect_uri": CALLBACK,
    "response_type": "code",
    "scope": "openid ovirt-app-api",
    "state": "st",
    "nonce": "once",
}


@pytest.fixture(scope="module")
def sso(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with serve(tmp_path_factory.mktemp("sso"), parse(ENVIRONMENT + MORE, origin="test")) as running:
        yield running


def post(lab: Lab, path: str, form: dict[str, str]) -> httpx.Response:
    return httpx.post(f"{lab.url}/ovirt-engine/sso/{path}", data=form, headers=JSON)


def log_in(lab: Lab, **more: str) -> str:
    form = {"grant_type": "password", "scope": "ovirt-app-api", "username": "joe@internal", "password": "pw", **more}
    token: str = post(lab, "oauth/token", form).raise_for_status().json()["access_token"]
    return token


def status(lab: Lab, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{lab.url}/ovirt-engine/api/vms", headers=headers).status_code


def browse(lab: Lab, asked: dict[str, str], *, password: str = "pw") -> httpx.Response:
    """Do what a browser and its user do, up to the answer to the login form."""
    with httpx.Client(base_url=lab.url, follow_redirects=True) as http:
        page = http.get("/ovirt-engine/sso/openid/authorize", params=asked)
        key = re.search(r'name="sessionIdToken" value="([^"]+)"', page.text)
        assert key, page.text
        action = re.search(r'action="([^"]+)"', page.text)
        assert action
        form = {"sessionIdToken": key[1], "username": "joe", "password": password, "profile": "internal"}
        return http.post(action[1], data=form, follow_redirects=False)


def code_of(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 302
    assert answer.headers["location"].startswith(f"{CALLBACK}?")
    return {key: values[0] for key, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def redeem(lab: Lab, code: str, **change: str) -> httpx.Response:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, **PORTAL, **change}
    return post(lab, "openid/token", form)


def part(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verified(lab: Lab, token: str) -> dict[str, Any]:
    """The claims of a JWT whose signature fits the published key."""
    document = httpx.get(f"{lab.url}/ovirt-engine/sso/openid/.well-known/openid-configuration").json()
    (key,) = httpx.get(f"{lab.url}{urlsplit(document['jwks_uri']).path}").json()["keys"]
    header, claims, signature = token.split(".")
    assert json.loads(part(header)) == {"alg": "RS256", "typ": "JWT", "kid": key["kid"]}
    numbers = rsa.RSAPublicNumbers(*(int.from_bytes(part(key[name]), "big") for name in ("e", "n")))
    signed = f"{header}.{claims}".encode()
    numbers.public_key().verify(part(signature), signed, padding.PKCS1v15(), hashes.SHA256())
    found: dict[str, Any] = json.loads(part(claims))
    assert found["iss"] == document["issuer"]
    return found


def test_a_registered_program_is_told_whose_token_it_is(sso: Lab) -> None:
    token = log_in(sso)
    form = {"token": token, "scope": "ovirt-ext=token-info:validate"}
    assert post(sso, "oauth/token-info", form).json() == {}
    told = post(sso, "oauth/token-info", {**form, **PORTAL}).json()
    assert (told["active"], told["client_id"], told["user_id"]) == (True, "portal", "joe@internal")
    user = sso.engine.state.users[told["ovirt"]["principal_id"]]
    assert told["ovirt"]["group_ids"] == list(user.group_ids) != []
    wrong = post(sso, "oauth/token-info", {**form, **PORTAL, "client_secret": "guess"})
    assert (wrong.status_code, wrong.json()["error"]) == (400, "unauthorized_client")


def test_an_unknown_scope_is_refused(sso: Lab) -> None:
    form = {"grant_type": "password", "scope": "world", "username": "joe@internal", "password": "pw"}
    assert post(sso, "oauth/token", form).json()["error"] == "invalid_scope"


def test_negotiation_is_offered_and_nothing_else(sso: Lab) -> None:
    answer = httpx.get(f"{sso.url}/ovirt-engine/sso/oauth/token-http-auth", headers=JSON)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Negotiate")


def test_a_token_that_several_programs_have_ends_with_the_last(sso: Lab) -> None:
    token = log_in(sso, **PORTAL)
    sso.engine.sessions.find(token).clients.add("plain")  # type: ignore[union-attr]
    post(sso, "oauth/revoke", {"token": token, **PORTAL})
    assert status(sso, token) == 200
    post(sso, "oauth/revoke", {"token": token, "client_id": "plain", "client_secret": "s3cret"})
    assert status(sso, token) == 401


def test_revoke_all_needs_a_program_and_ends_the_token(sso: Lab) -> None:
    token = log_in(sso, **PORTAL)
    sso.engine.sessions.find(token).clients.add("plain")  # type: ignore[union-attr]
    form = {"token": token, "scope": "ovirt-ext=revoke:revoke-all"}
    assert post(sso, "oauth/revoke", form).status_code == 400
    assert status(sso, token) == 200
    assert post(sso, "oauth/revoke", {**form, **PORTAL}).json() == {}
    assert status(sso, token) == 401


def test_a_token_for_something_else_does_not_open_the_api(sso: Lab) -> None:
    token = log_in(sso, scope="openid")
    assert status(sso, token) == 401
    sso.engine.sessions.find(token).used = sso.engine.context.clock.seconds()  # type: ignore[union-attr]
    assert status(sso, token) == 200  # the engine has a session for it, as for a WebAdmin user's


def test_an_idle_login_ends_and_one_in_use_does_not(lab: Lab) -> None:
    lab.engine.state.settings.session_idle_limit = 60  # 3 real seconds at this scale
    form = {"grant_type": "password", "scope": "ovirt-app-api", "username": "admin@internal", "password": "secret"}
    idle, used = (post(lab, "oauth/token", form).json()["access_token"] for _ in range(2))
    assert status(lab, idle) == status(lab, used) == 200

    def over() -> bool:
        assert status(lab, used) == 200
        return lab.engine.sessions.find(idle) is None

    lab.wait(over)
    assert (status(lab, idle), status(lab, used)) == (401, 200)


def test_a_kept_login_needs_no_token(sso: Lab) -> None:
    url, prefer = f"{sso.url}/ovirt-engine/api/vms", {"Prefer": "persistent-auth"}
    first = httpx.get(url, auth=("joe@internal", "pw"), headers={**prefer, "Session-TTL": "5"})
    assert "httponly" in first.headers["set-cookie"].lower()
    assert "Path=/ovirt-engine/api" in first.headers["set-cookie"]
    cookie = {"Cookie": f"JSESSIONID={first.cookies['JSESSIONID']}"}
    kept = sso.engine.sessions.kept(first.cookies["JSESSIONID"])
    assert kept
    assert kept.idle_limit == 300
    for _ in range(2):
        assert httpx.get(url, headers={**prefer, **cookie}).status_code == 200
    assert httpx.get(url, headers=cookie).status_code == 200  # the last one: it does not ask to go on
    assert httpx.get(url, headers={**prefer, **cookie}).status_code == 401


def test_a_browser_brings_a_code_and_the_code_a_signed_identity(sso: Lab) -> None:
    back = code_of(browse(sso, ASKED))
    assert back["state"] == "st"
    answer = redeem(sso, back["code"]).raise_for_status().json()
    assert status(sso, answer["access_token"]) == 200
    claims = verified(sso, answer["id_token"])
    assert (claims["aud"], claims["nonce"], claims["preferred_username"]) == ("portal", "once", "joe@internal")
    assert claims["groups"] == ["operators"]
    assert claims["auth_time"] <= claims["iat"] <= time.time() < claims["exp"]  # others have clocks of their own

    headers = {"Authorization": f"Bearer {answer['access_token']}"}
    info = httpx.get(f"{sso.url}/ovirt-engine/sso/openid/userinfo", headers=headers)
    assert info.headers["content-type"] == "application/jwt"
    assert verified(sso, info.text)["sub"] == claims["sub"]
    again = redeem(sso, back["code"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


def test_userinfo_is_plain_where_the_program_wants_it(sso: Lab) -> None:
    token = log_in(sso, scope="openid", client_id="plain", client_secret="s3cret")
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{sso.url}/ovirt-engine/sso/openid/userinfo"
    assert httpx.get(url, headers=headers).json()["preferred_username"] == "joe@internal"
    assert httpx.get(url).status_code == 401


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"client_secret": "guess"}, "unauthorized_client"),
        ({"redirect_uri": "https://portal.example/else"}, "invalid_grant"),
        ({"client_id": "plain"}, "invalid_grant"),
        ({"code": "made-up"}, "invalid_grant"),
    ],
)
def test_a_code_is_for_its_program_and_place_only(sso: Lab, change: dict[str, str], error: str) -> None:
    code = code_of(browse(sso, ASKED))["code"]
    answer = redeem(sso, change.pop("code", code), **change)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_a_wrong_password_shows_the_form_again(sso: Lab) -> None:
    page = browse(sso, ASKED, password="guess")
    assert page.status_code == 200
    assert "username or password is incorrect" in page.text


def test_browsers_are_sent_only_where_the_program_lives(sso: Lab) -> None:
    url = f"{sso.url}/ovirt-engine/sso/openid/authorize"
    for change in ({"redirect_uri": "https://evil.example/"}, {"client_id": "unknown"}):
        assert httpx.get(url, params={**ASKED, **change}).status_code == 400
    told = httpx.get(url, params={**ASKED, "scope": "ovirt-app-api"})
    assert code_of(told)["error"] == "invalid_scope"
    assert code_of(httpx.get(url, params={**ASKED, "response_type": "token"}))["error"] == "unsupported_response_type"
