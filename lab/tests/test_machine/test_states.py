# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache of saved states under users at the same time, and after one that died."""

import asyncio
import shutil

import pytest

from ovirtlab.machine.states import Shape, StateCache

pytestmark = pytest.mark.guest

SHAPE = Shape(sizes=(64 << 20,), agent=False, memory_mib=128)


def test_users_at_the_same_time_share_one_state(tmp_path):
    async def scenario():
        async with asyncio.timeout(100):
            first, second = await asyncio.gather(*(StateCache(tmp_path / "cache").ensure(SHAPE) for _ in range(2)))
            assert first == second
            made = first.state.stat()
            assert (await StateCache(tmp_path / "cache").ensure(SHAPE)).state.stat().st_ino == made.st_ino

    asyncio.run(scenario())
    names = sorted(path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".lock-"))
    assert len(names) == 2  # the state and the initramfs: no half-made one
    assert names[1].startswith("initrd-") or names[0].startswith("initrd-")


def test_an_unknown_key_is_no_state(tmp_path):
    cache = StateCache(tmp_path)
    assert cache.find("cleared-away") is None
    assert cache.find("../elsewhere") is None
    shutil.rmtree(tmp_path)
    assert cache.find("cleared-away") is None
