# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for all tests: examples may take any time, as the machine may be busy, and Ctrl-C is heard."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("overkeep", deadline=None)
settings.load_profile("overkeep")

# A shell has its background jobs ignore Ctrl-C, and the programs under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
