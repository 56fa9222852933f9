# SPDX-License-Identifier: GPL-3.0-or-later
"""The root shell on a guest's serial console, used as a way to run programs with their exit status."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ovirtlab.machine.errors import HostError

READY = "GUEST-READY"
BROKEN = "GUEST-BROKEN"
LINE_LIMIT = 64 << 20
LINE_WIDTH = 512  # the terminal takes lines of at most 4096 characters

_serial = itertools.count(1)


async def run(path: Path, argv: Sequence[str], *, timeout: float) -> tuple[int, bytes, bytes]:
    """Run a program through the console's socket `path`; return exit status, output and error output.

    One call at a time: QEMU lets one connection through, and there is one shell.
    """
    mark = f"lab-{next(_serial)}"
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=LINE_LIMIT)
    except OSError as error:
        raise HostError(f"the console is closed: {error}") from error
    try:
        async with asyncio.timeout(timeout):
            writer.write(_orders(mark, argv).encode())
            await writer.drain()
            await _until(reader, f"{mark}-begin")
            out = await _until(reader, f"{mark}-out")
            err = await _until(reader, f"{mark}-err")
            status = await _until(reader, f"{mark}-end")
        return int(status), base64.b64decode(out), base64.b64decode(err)
    except TimeoutError as error:
        raise HostError(f"the guest's console did not finish {list(argv)} in {timeout:g} s") from error
    except (asyncio.IncompleteReadError, OSError, ValueError) as error:
        raise HostError(f"the guest's console broke off during {list(argv)}: {error}") from error
    finally:
        writer.close()


def _orders(mark: str, argv: Sequence[str]) -> str:
    """Lines for the shell: the program travels as base64, so that neither its size nor its characters matter."""
    program = base64.b64encode(shlex.join(argv).encode()).decode()
    lines = "\n".join(textwrap.wrap(program, LINE_WIDTH))
    folder = f"/run/console/{mark}"
    return (
        f"\nmkdir -p {folder}; base64 -d >{folder}/run <<'{mark}'\n{lines}\n{mark}\n"
        f"sh {folder}/run </dev/null >{folder}/out 2>{folder}/err; status=$?; echo {mark}-begin; "
        f"base64 <{folder}/out; echo {mark}-out; base64 <{folder}/err; echo {mark}-err; echo $status; echo {mark}-end; "
        f"rm -r {folder}\n"
    )


async def _until(reader: asyncio.StreamReader, mark: str) -> bytes:
    """What is read before the line `mark`; kernel messages may stand anywhere before the first mark only."""
    taken: list[bytes] = []
    while not (line := await reader.readline()).strip().endswith(mark.encode()):
        if not line:
            raise asyncio.IncompleteReadError(b"", None)
        taken.append(line.strip())
    return b"".join(taken)
