# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for all tests, of product and lab: no process compiles again what it imports, and Ctrl-C is heard."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

# Tests start hundreds of processes, each of which would spend more time on compiling than on anything else. Who does
# not want compiled files beside the sources has them elsewhere.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    sys.pycache_prefix = os.environ.setdefault(
        "PYTHONPYCACHEPREFIX", str(Path(__file__).parent / ".cache" / "bytecode")
    )
    sys.dont_write_bytecode = False

# Also imported early for those who have no examples: its plugin would do so at the end, where Python 3.11 may fail.
from hypothesis import settings

# The machine may be busy.
settings.register_profile("overkeep", deadline=None)
settings.load_profile("overkeep")

# A shell has its background jobs ignore Ctrl-C, and the programs under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
