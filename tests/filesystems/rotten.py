# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.filesystems.rotten BELOW MOUNTPOINT SUFFIX OFFSET`: it stores well and returns one byte wrong.

What is written goes to the folder BELOW as it is. In whatever is read of a file whose name ends with SUFFIX, the byte
at OFFSET (from the end, when negative) is another one, as on a server with a bad disk.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.filesystems.passthrough import Passthrough


class Rotten(Passthrough):
    """Every call goes to the folder below; one byte of what is read does not come as it is there."""

    def __init__(self, below: Path, suffix: str, offset: int) -> None:
        super().__init__(below)
        self._suffix = suffix
        self._offset = offset

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        data = bytearray(super().read(path, size, offset, fh))
        if path.endswith(self._suffix):
            at = self._offset if self._offset >= 0 else os.fstat(fh).st_size + self._offset
            if offset <= at < offset + len(data):
                data[at - offset] ^= 0xFF
        return bytes(data)


if __name__ == "__main__":
    below, mountpoint, suffix, offset = sys.argv[1:]
    Rotten(Path(below), suffix, int(offset)).serve(mountpoint)
