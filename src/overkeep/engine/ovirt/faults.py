# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place where errors of the SDK become errors of the port.

The Manager tells causes apart by status code and by the sentences of its message bundle (`AppErrors.properties`);
the sentences are matched loosely, as they differ between releases.
"""

from __future__ import annotations

import re

import ovirtsdk4 as sdk

from overkeep.engine.errors import (
    BadAnswer,
    Busy,
    CheckpointInvalid,
    EngineNotTrusted,
    EngineRefused,
    EngineUnreachable,
    LoginRefused,
    NotFoundInEngine,
    PermissionDenied,
    VmLocked,
)
from overkeep.engine.site import Site
from overkeep.errors import OverkeepError, Unauthorized

_TRANSPORT = re.compile(r"Failed to read response|Error while sending HTTP request")
_CURL = re.compile(r"""(\d{1,2}), (['"])(.*)\2\)""")  # as in [(<pycurl object>, 7, 'Failed to connect')]
_CURL_TLS = {35, 51, 58, 59, 60, 77, 83}

# In this order: the first that matches is the cause.
_CAUSES: tuple[tuple[re.Pattern[str], type[EngineRefused]], ...] = (
    (re.compile(r"checkpoint.*(doesn't exist|does not exist|invalid|should be removed)", re.I), CheckpointInvalid),
    (re.compile(r"not included in the previous VM backup|bitmap.*(doesn't|does not) exist", re.I), CheckpointInvalid),
    (re.compile(r"not authorized|insufficient permissions|no permission", re.I), PermissionDenied),
    (re.compile(r"active image transfer", re.I), Busy),
    (re.compile(r"\block(ed)?\b|during a backup|being backed up", re.I), VmLocked),
    (re.compile(r"should be in Up or Down|migrat|snapshot.*(being|in progress)|try again|timed out", re.I), Busy),
)


def translate(error: sdk.Error, act: str, *, what: str, site: Site, username: str) -> OverkeepError:
    """Return what an error of the SDK means; `act` and `what` are words of a sentence, `back up VM x` and `VM x`."""
    if isinstance(error, sdk.ConnectionError | sdk.TimeoutError) or _TRANSPORT.search(str(error)):
        return _transport(str(error), site)
    if isinstance(error, sdk.AuthError) and error.code is None:
        return LoginRefused(url=site.url, username=username, words=str(error))
    if error.code is None:
        return BadAnswer(url=site.url, reason=str(error))
    words = manager_words(error)
    if error.code == 401:
        return Unauthorized()
    if error.code == 404:
        return NotFoundInEngine(act=act, what=what, words=words)
    return _refused(error.code, words, act=act, username=username)


def manager_words(error: sdk.Error) -> str:
    """Return the Manager's own sentences for a refusal, ending with a full stop."""
    fault = error.fault
    text = (fault.detail or fault.reason or "") if fault is not None else ""
    text = text.strip().removeprefix("[").removesuffix("]").strip()
    text = text or f"it answered status {error.code} without a reason"
    return text if text.endswith((".", "!")) else f"{text}."


def _refused(code: int, words: str, *, act: str, username: str) -> EngineRefused:
    if code == 403:
        return PermissionDenied(act=act, words=words, username=username)
    for pattern, cause in _CAUSES:
        if pattern.search(words):
            return cause(act=act, words=words, username=username, what=act)
    return EngineRefused(act=act, words=words)


def _transport(text: str, site: Site) -> OverkeepError:
    found = _CURL.search(text)
    reason = found.group(3) if found else text
    if found and int(found.group(1)) in _CURL_TLS:
        return EngineNotTrusted(url=site.url, reason=reason, ca_file=site.ca_file)
    return EngineUnreachable(url=site.url, reason=reason)
