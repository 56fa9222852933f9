# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line's side of the REST API: typed documents in, problem documents as errors."""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from overkeep.api.documents import ProblemOut
from overkeep.api.job_documents import JobOut
from overkeep.api.point_documents import PointOut
from overkeep.api.policy_documents import VmMarksOut
from overkeep.cli import session, sse
from overkeep.cli.exits import ControllerUnreachable, Problem
from overkeep.cli.session import Session
from overkeep.errors import ConfigError, OverkeepError

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 60.0
_PAGE = 1000
_Document = TypeVar("_Document")


class AnswerLost(ControllerUnreachable):
    """The connection ended before the answer came."""


class Client:
    """The API as the logged-in user; use as a context manager. `patience` is how many seconds an answer may take."""

    def __init__(self, known: Session | None = None, *, patience: float = ANSWER_TIMEOUT) -> None:
        self._session = known or session.load()
        timeout = httpx.Timeout(patience, connect=CONNECT_TIMEOUT)
        self._http = httpx.Client(
            base_url=self._session.controller,
            verify=_trust(self._session),
            timeout=timeout,
            trust_env=False,
            headers={"Authorization": f"Bearer {self._session.token}"} if self._session.token else {},
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, kind: type[_Document], /, **query: Any) -> _Document:
        """GET a document."""
        return self._read(kind, "GET", path, params=_given(query))

    def all(self, path: str, kind: type[_Document], /, **query: Any) -> list[_Document]:
        """GET a list, all of its pages."""
        found: list[_Document] = []
        for page in self._pages(path, **query):
            found += self._documents(list[kind], page)  # type: ignore[valid-type] # a type that is known at run time only
        return found

    def first(self, path: str, kind: type[_Document], /, *, limit: int, **query: Any) -> list[_Document]:
        """GET the first items of a list; a page may have fewer than were asked for although there are more."""
        found: list[_Document] = []
        for page in self._pages(path, limit=limit, **query):
            found += self._documents(list[kind], page)  # type: ignore[valid-type] # as in `all`
            if len(found) >= limit:
                break
        return found[:limit]

    def points(self, **query: Any) -> tuple[list[PointOut], tuple[str, ...]]:
        """GET restore points, all pages, and the names of targets on which may be others."""
        found: list[PointOut] = []
        away: dict[str, None] = {}
        for page in self._pages("/api/v1/points", **query):
            found += self._documents(list[PointOut], page)
            away |= dict.fromkeys(_away(page))
        return found, tuple(away)

    def marks(self, path: str, **query: Any) -> tuple[list[VmMarksOut], tuple[str, ...]]:
        """GET what a retention would do, and the names of targets on which may be other points."""
        answer = self._call("GET", path, params=_given(query))
        return self._documents(list[VmMarksOut], answer), _away(answer)

    def post(self, path: str, kind: type[_Document], body: BaseModel | None = None, **query: Any) -> _Document:
        """POST a document and return the answer; when that is lost on the way it is asked for once more."""
        content = body.model_dump(mode="json") if body else None
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        options: dict[str, Any] = {"params": _given(query), "json": content, "headers": headers}
        try:
            return self._read(kind, "POST", path, **options)
        except AnswerLost:
            return self._read(kind, "POST", path, **options)

    def put(
        self, path: str, kind: type[_Document], body: BaseModel, *, version: int | None = None, **query: Any
    ) -> _Document:
        """PUT a document, in place of a version of it, and return the answer."""
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        return self._read(kind, "PUT", path, params=_given(query), json=body.model_dump(mode="json"), headers=headers)

    def delete(self, path: str, **query: Any) -> None:
        """DELETE."""
        self._call("DELETE", path, params=_given(query))

    def begin_delete(self, path: str, **query: Any) -> JobOut:
        """DELETE what a job removes, and return the job."""
        return self._read(JobOut, "DELETE", path, params=_given(query))

    def job(self, job_id: str) -> JobOut:
        """One job."""
        return self.get(f"/api/v1/jobs/{job_id}", JobOut)

    def stream(self, path: str, *, number: str = "", **query: Any) -> Iterator[sse.Message]:
        """The messages of a stream, from the one after `number` on, until the controller ends it."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": number} if number else {})
        try:
            with self._http.stream("GET", path, params=_given(query), headers=headers) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._problem(answer)
                yield from sse.messages(answer.iter_lines())
        except httpx.TransportError as error:
            raise self._unreachable(str(error) or type(error).__name__) from error

    def cancel(self, job_id: str) -> JobOut:
        """Ask a job to end."""
        return self.post(f"/api/v1/jobs/{job_id}/cancel", JobOut)

    def _pages(self, path: str, **query: Any) -> Iterator[httpx.Response]:
        answer = self._call("GET", path, params=_given({"limit": _PAGE, **query}))
        yield answer
        while "next" in answer.links:
            answer = self._call("GET", answer.links["next"]["url"])
            yield answer

    def _read(self, kind: type[_Document], method: str, path: str, **options: Any) -> _Document:
        return self._documents(kind, self._call(method, path, **options))

    def _documents(self, kind: type[_Document], answer: httpx.Response) -> _Document:
        try:
            return TypeAdapter(kind).validate_json(answer.content)
        except ValidationError as error:
            raise self._unreachable("its answer is not that of a controller of this version") from error

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except (httpx.ReadError, httpx.RemoteProtocolError) as error:
            raise AnswerLost(url=self._session.controller, reason=str(error) or type(error).__name__) from error
        except httpx.TransportError as error:
            raise self._unreachable(str(error) or type(error).__name__) from error
        if not answer.is_success:
            raise self._problem(answer)
        return answer

    def _problem(self, answer: httpx.Response) -> OverkeepError:
        try:
            told = ProblemOut.model_validate_json(answer.content)
        except ValidationError:
            return self._unreachable(f"status {answer.status_code}, without a reason")
        return Problem(detail=told.detail, code=told.code, status=told.status, retry=told.retry)

    def _unreachable(self, reason: str) -> ControllerUnreachable:
        return ControllerUnreachable(url=self._session.controller, reason=reason)


def _away(answer: httpx.Response) -> tuple[str, ...]:
    return tuple(name.strip() for name in answer.headers.get("Overkeep-Away", "").split(",") if name)


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _trust(known: Session) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=known.controller_ca)
    except (OSError, ssl.SSLError) as error:
        reason = f"it cannot be used as the controller's CA certificate ({error})"
        raise ConfigError(path=known.controller_ca, reason=reason) from error
