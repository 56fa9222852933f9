# SPDX-License-Identifier: GPL-3.0-or-later
"""What a manifest says of the files of the configuration beside it: the size and the SHA-256 of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

FIELD = "configuration"
"""Where it stands in the manifest; points of earlier writers do not have it."""


def sealed(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The field of a manifest, for files by their names."""
    return {FIELD: {name: _seal(content) for name, content in files.items()}}


def intact(manifest: Mapping[str, Any], name: str, content: bytes) -> bool:
    """Whether a file is what the manifest says; yes when it says nothing."""
    said = manifest.get(FIELD, {}).get(name)
    return said is None or {key: said.get(key) for key in ("size", "sha256")} == _seal(content)


def _seal(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
