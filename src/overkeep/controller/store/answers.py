# SPDX-License-Identifier: GPL-3.0-or-later
"""What calls with an idempotency key were answered: a repeat gets the same answer and does nothing again."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from overkeep.controller.store import schema as t
from overkeep.errors import OverkeepError
from overkeep.units import utc_now

KEPT = dt.timedelta(hours=24)
LONGEST = dt.timedelta(minutes=2)  # that a call takes; after that it has died with its controller
_UNKNOWN = ""  # when it began, of a call that broke off


class KeyReused(OverkeepError):
    """The key was used for another call."""

    code = "idempotency-key-reused"
    template = "The idempotency key {key!r} was used for another request; use a new key for each request."
    status = 422


class KeyInUse(OverkeepError):
    """The first call with the key has not ended."""

    code = "idempotency-key-in-use"
    template = "The request with idempotency key {key!r} is still being answered; repeat it in a moment."
    retry = True
    status = 409


class OutcomeUnknown(OverkeepError):
    """The first call with the key broke off."""

    code = "idempotency-outcome-unknown"
    template = (
        "The request with idempotency key {key!r} broke off, and nobody knows whether it had its effect; "
        "look whether it did, and use a new key to repeat it."
    )
    status = 409


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call with a key: keys are the caller's own, and `fingerprint` tells his calls apart."""

    user_id: str
    key: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was answered."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Answers:
    """The table of calls with a key."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def begin(self, call: Call) -> Answer | None:
        """Note that a call begins; the answer when it was answered before.

        Raises `KeyReused`, `KeyInUse` and `OutcomeUnknown`.
        """
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.delete(t.answer).where(*_is(call), t.answer.c.kept_until < _stamp()))
                row = connection.execute(sa.select(t.answer).where(*_is(call))).first()
                if row is None:
                    until = _stamp(KEPT)
                    new = {"user_id": call.user_id, "key": call.key, "fingerprint": call.fingerprint}
                    connection.execute(sa.insert(t.answer).values(**new, begun=_stamp(), kept_until=until))
                    return None
        except sa.exc.IntegrityError as error:  # another controller was quicker
            raise KeyInUse(key=call.key) from error
        return _before(call, row)

    def finish(self, call: Call, answer: Answer) -> None:
        """Keep the answer."""
        values = {"status": answer.status, "body": answer.body, "headers": json.dumps(dict(answer.headers))}
        self._change(call, values)

    def break_off(self, call: Call) -> None:
        """Note that nobody knows whether the call had its effect."""
        self._change(call, {"begun": _UNKNOWN})

    def drop(self, call: Call) -> None:
        """Forget a call that was refused and had no effect: the key may be used again."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(t.answer).where(*_is(call)))

    def forget(self) -> None:
        """Remove what is older than a day."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(t.answer).where(t.answer.c.kept_until < _stamp()))

    def _change(self, call: Call, values: Mapping[str, object]) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.update(t.answer).where(*_is(call)).values(dict(values)))


def _before(call: Call, row: sa.Row[tuple[object, ...]]) -> Answer:
    """The answer of an earlier call with the same key."""
    if row.fingerprint != call.fingerprint:
        raise KeyReused(key=call.key)
    if row.status is not None:
        return Answer(status=row.status, body=row.body, headers=json.loads(row.headers))
    if row.begun < _stamp(-LONGEST):
        raise OutcomeUnknown(key=call.key)
    raise KeyInUse(key=call.key)


def _is(call: Call) -> tuple[sa.ColumnElement[bool], ...]:
    return (t.answer.c.user_id == call.user_id, t.answer.c.key == call.key)


def _stamp(more: dt.timedelta = dt.timedelta()) -> str:
    return (utc_now() + more).isoformat(timespec="milliseconds")
