# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for all tests: Hypothesis takes no time of a single example, since the machine may be busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("overkeep", deadline=None)
settings.load_profile("overkeep")
