# SPDX-License-Identifier: GPL-3.0-or-later
"""Fuzzing of everything that parses an image: `python -m tests.blocks.fuzz_images <folder> [options of libFuzzer]`.

The folder has the corpus: small images, in `corpus/`. Each input is opened, checked and read. Nothing but typed errors
may come out, and what is read must be what the extents promise.
"""

from __future__ import annotations

import contextlib
import random
import sys
from itertools import islice
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["overkeep.blocks"]):
    from overkeep.blocks.qcow2.check import check_image
    from overkeep.blocks.qcow2.reader import ChainReader
from overkeep.errors import OverkeepError
from overkeep.units import KIB, MIB
from tests.blocks.damage import change_word

_MOST_EXTENTS = 500
_MOST_READ = MIB


class Target:
    """One input after the other, each as the same file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "b.raw").write_bytes(b"raw!" * KIB)

    def __call__(self, data: bytes) -> None:
        (self._folder / "a.qcow2").write_bytes(data)
        for act in (self._check, self._read):
            with contextlib.suppress(OverkeepError):
                act()

    def _check(self) -> None:
        report = check_image(self._folder, "a.qcow2")
        assert report.errors + report.leaks >= len(report.findings)

    def _read(self) -> None:
        reader = ChainReader(self._folder, "a.qcow2")
        try:
            position = 0
            for extent in islice(reader.extents(dirty=False), _MOST_EXTENTS):
                assert extent.start == position
                assert extent.length > 0
                position = extent.end
                content = bytearray(min(extent.length, _MOST_READ))
                reader.read_into(extent.start, memoryview(content))
                assert not (extent.zero and any(content))
            assert position <= reader.size
        finally:
            reader.close()


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """Change an image: any bytes, or a number in one of its tables."""
    rng = random.Random(seed)
    if rng.random() < 0.4 or len(data) < KIB:
        return bytes(atheris.Mutate(data, most))
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 6])):
        change_word(changed, rng)
    return bytes(changed)


def main() -> None:
    """Run until libFuzzer's options or a finding end it."""
    folder = Path(sys.argv[1])
    arguments = [sys.argv[0], *sys.argv[2:], str(folder / "corpus")]
    atheris.Setup(arguments, Target(folder), custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
