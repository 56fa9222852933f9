# SPDX-License-Identifier: GPL-3.0-or-later
"""Several slashes in a row are one, as the web server in front of an engine has it; some clients send them."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_SEVERAL, _SEVERAL_RAW = re.compile("//+"), re.compile(b"//+")


class MergedSlashes:
    """An application that sees each path with single slashes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "//" in scope.get("path", ""):
            raw = scope.get("raw_path") or b""
            scope = {**scope, "path": _SEVERAL.sub("/", scope["path"]), "raw_path": _SEVERAL_RAW.sub(b"/", raw)}
        await self._app(scope, receive, send)
