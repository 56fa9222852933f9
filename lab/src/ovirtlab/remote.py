# SPDX-License-Identifier: GPL-3.0-or-later
"""A running lab as its commands see it: calls to the supervisor's control socket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ovirtlab.fabric.unixhttp import UnixConnection
from ovirtlab.places import Places


class LabError(Exception):
    """What was asked of a lab was not done; the text is the sentence for the user."""


def call(places: Places, method: str, *parts: str, body: Mapping[str, Any] | None = None) -> Any:
    """Send a request and return the answer's document; raise `LabError`.

    There is no time limit: a command in a guest may run as long as it likes.
    """
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    connection = UnixConnection(places.control, timeout=None)
    try:
        connection.request(method, path, body=json.dumps(body or {}), headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        document = _document(answer.read())
    except (FileNotFoundError, ConnectionError) as error:
        raise LabError(f"No lab is up in {places.directory}; start one with `ovirtlab up`.") from error
    except OSError as error:
        raise LabError(f"The lab in {places.directory} does not answer ({error}); see `ovirtlab logs`.") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise LabError(str(document.get("error", f"the lab answered with status {answer.status}")))
    return document


def _document(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return {"error": f"the lab answered: {content.decode(errors='replace')}; see `ovirtlab logs`"}
