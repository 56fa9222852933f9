# SPDX-License-Identifier: GPL-3.0-or-later
"""Typed errors: a stable code, one sentence for the user, fields, and whether a retry helps."""

from __future__ import annotations

from typing import Any, ClassVar


class OverkeepError(Exception):
    """An error a user may see.

    Subclasses set `code` (stable, kebab-case), `template` (one sentence: what happened, to what, what to do; filled
    from the keyword fields), `retry` (whether the same act may succeed later without anybody's help) and `status`
    (of the HTTP answer that carries it).
    """

    code: ClassVar[str] = "internal"
    template: ClassVar[str] = "Something unexpected happened: {reason}. Look in the log and report it."
    retry: ClassVar[bool] = False
    status: ClassVar[int] = 500

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        super().__init__(self.template.format(**fields))

    @property
    def message(self) -> str:
        """The sentence for the user."""
        return str(self)


class NotFound(OverkeepError):
    """A thing that was named does not exist."""

    code = "not-found"
    template = "There is no {kind} {name!r}; list them with `{how}`."
    status = 404


class Conflict(OverkeepError):
    """What was asked contradicts what is there."""

    code = "conflict"
    template = "{what}; {todo}."
    status = 409


class ChangedMeanwhile(OverkeepError):
    """Somebody else changed what was to be changed."""

    code = "changed-meanwhile"
    template = "The {kind} {name!r} was changed by somebody else meanwhile; look at it again and repeat the change."
    status = 412


class BadRequest(OverkeepError):
    """The request itself is wrong."""

    code = "bad-request"
    template = "{what}; {todo}."
    status = 400


class Unauthorized(OverkeepError):
    """Nobody is logged in, or the Manager no longer knows the token."""

    code = "not-logged-in"
    template = "The Manager does not accept your token (it expired or was revoked); log in again with `overkeep login`."
    status = 401


class Forbidden(OverkeepError):
    """The caller lacks a right in the Manager."""

    code = "forbidden"
    template = "You may not {act} {what}; ask an administrator of the Manager for the permit {permit!r}."
    status = 403


class ConfigError(OverkeepError):
    """A settings file cannot be used."""

    code = "bad-config"
    template = "The settings in {path} cannot be used: {reason}; correct the file."


class CommandFailed(OverkeepError):
    """A program that was started failed."""

    code = "command-failed"
    template = "The command {command} ended with status {status_code}: {output}"


class Cancelled(OverkeepError):
    """The work was cancelled by its owner."""

    code = "cancelled"
    template = "{what} was cancelled; nothing of it was kept."
    status = 409
