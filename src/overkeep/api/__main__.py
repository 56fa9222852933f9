# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m overkeep.api`: write the OpenAPI document, as it is committed, to standard output."""

from __future__ import annotations

import sys

from overkeep.api.app import openapi_text

if __name__ == "__main__":
    sys.stdout.write(openapi_text())
