# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m overkeep.api`: write the OpenAPI document, as it is committed, to standard output."""

from __future__ import annotations

import sys

from overkeep.api import openapi
from overkeep.api.app import create_app

if __name__ == "__main__":
    sys.stdout.write(openapi.text(create_app(None)))
