# SPDX-License-Identifier: GPL-3.0-or-later
"""A Manager that gives recorded answers, for what a whole one does not do on demand."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from overkeep.config import EngineConfig

USERNAME, PASSWORD = "backup@internal", "a secret"
ROOT = (
    "<api><product_info><version><major>4</major><minor>5</minor><full_version>4.5.7</full_version></version>"
    '</product_info><authenticated_user id="u1"/><effective_user id="u1"/></api>'
)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    token: str
    body: str


@dataclass(frozen=True)
class Answer:
    body: str = ""
    status: int = 200
    kind: str = "application/xml"


Reply = Answer | Callable[[Request], Answer]


@dataclass
class Recorded:
    """`answers` maps `GET /vms` to what is answered; `tokens` are those that are accepted."""

    url: str = ""
    answers: dict[str, Reply] = field(default_factory=lambda: {"GET ": Answer(ROOT)})
    seen: list[Request] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    logins: int = 0

    def reply(self, request: Request) -> Answer:
        self.seen.append(request)
        if request.path.endswith("/sso/oauth/token"):
            return self._log_in(request)
        if request.path.endswith("/services/sso-logout"):
            self.tokens.discard(urllib.parse.parse_qs(request.body)["token"][0])
            return Answer("{}", kind="application/json")
        if request.token not in self.tokens:
            return Answer(status=401)
        path = request.path.removeprefix("/ovirt-engine/api").partition("?")[0]
        answer = self.answers.get(f"{request.method} {path}", Answer(status=404))
        return answer(request) if callable(answer) else answer

    def _log_in(self, request: Request) -> Answer:
        form = urllib.parse.parse_qs(request.body)
        if form["password"] != [PASSWORD]:
            words = {"error_code": "access_denied", "error": "Cannot authenticate user Invalid user credentials."}
            return Answer(json.dumps(words), status=400, kind="application/json")
        self.logins += 1
        token = f"token-{self.logins}"
        self.tokens.add(token)
        return Answer(json.dumps({"access_token": token, "token_type": "bearer"}), kind="application/json")


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    answers = Recorded()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            reply = answers.reply(Request(self.command, self.path, token, self.rfile.read(length).decode()))
            body = reply.body.encode()
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", reply.kind)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - the names http.server wants

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    answers.url = f"http://127.0.0.1:{server.server_port}/ovirt-engine/api"
    yield answers
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def settings(recorded: Recorded, tmp_path: Path) -> EngineConfig:
    password_file = tmp_path / "password"
    password_file.write_text(PASSWORD + "\n")
    return EngineConfig(url=recorded.url, ca_file=tmp_path / "ca.pem", username=USERNAME, password_file=password_file)
