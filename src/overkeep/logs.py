# SPDX-License-Identifier: GPL-3.0-or-later
"""Logging: one line an event, `key=value` fields, UTC times; what is secret never gets here."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path


def setup(level: str = "INFO", path: Path | None = None) -> None:
    """Send the root logger to `path`, or to standard error when there is none."""
    handler: logging.Handler = logging.FileHandler(path) if path else logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "uvicorn.access", "dbos"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def fields(**values: object) -> str:
    """Write fields as `key=value`, in the order given."""
    return " ".join(f"{key}={value}" for key, value in values.items())
