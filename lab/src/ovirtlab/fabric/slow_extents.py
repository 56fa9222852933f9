# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m ovirtlab.fabric.slow_extents FILE ...`: an ovirt-imageio that waits before it answers about extents.

The daemon is the unmodified one in all else. FILE holds the seconds, and is read again at each request.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ovirt_imageio._internal import server
from ovirt_imageio._internal.handlers import extents


def main(arguments: list[str]) -> None:
    """Become the daemon."""
    delay, *rest = arguments
    answer = extents.Handler.get

    def slowly(handler: Any, *call: Any) -> Any:
        time.sleep(float(Path(delay).read_text()))
        return answer(handler, *call)

    extents.Handler.get = slowly
    sys.argv = ["ovirt-imageio", *rest]
    server.main()


if __name__ == "__main__":
    main(sys.argv[1:])
