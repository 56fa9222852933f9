# SPDX-License-Identifier: GPL-3.0-or-later
"""What digests are made of, by what the format says and not by our code."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from overkeep.blocks.buffers import CLUSTER
from overkeep.blocks.hashing import DIGEST, KINDS, ZERO, Blake3, Gmac, Hashing, fresh

KEY = bytes(range(16))


def blake3_128(cluster: bytes) -> bytes:
    return bytes(blake3(cluster).digest(16))


def gmac(cluster: bytes) -> bytes:
    """As NIST SP 800-38D defines it, bit by bit."""
    encrypt = Cipher(AES(KEY), ECB()).encryptor().update  # of single blocks
    subkey = int.from_bytes(encrypt(bytes(16)))
    lengths = (8 * len(cluster)).to_bytes(8) + bytes(8)
    found = 0
    for at in range(0, len(cluster) + 16, 16):
        block = cluster[at : at + 16] or lengths
        found = _product(found ^ int.from_bytes(block), subkey)
    return (found ^ int.from_bytes(encrypt(bytes(12) + b"\0\0\0\1"))).to_bytes(16)


def _product(one: int, other: int) -> int:
    """Of the field with 2**128 elements."""
    result = 0
    for bit in range(127, -1, -1):
        if one >> bit & 1:
            result ^= other
        other = other >> 1 ^ (0xE1 << 120 if other & 1 else 0)
    return result


EACH = pytest.mark.parametrize(
    ("made", "reference"), [(Blake3(), blake3_128), (Gmac(KEY), gmac)], ids=["blake3", "gmac"]
)


def test_zero_is_what_the_format_says() -> None:
    document = Path(__file__).parents[2] / "docs" / "format" / "1.md"
    assert f"`ZERO` = `{ZERO.hex()}`" in document.read_text()
    assert blake3_128(bytes(CLUSTER)) == ZERO


@EACH
def test_a_digest_is_what_the_format_says(made: Hashing, reference: Callable[[bytes], bytes]) -> None:
    data = bytearray(os.urandom(CLUSTER)) + bytearray(CLUSTER) + b"end"
    digests = made.of(memoryview(data))
    assert digests[:16] == reference(bytes(data[:CLUSTER]))
    assert digests[16:32] == ZERO
    assert digests[32:] == reference(b"end" + bytes(CLUSTER - 3))


@EACH
def test_zeroes_of_any_length_are_zero(made: Hashing, reference: object) -> None:
    assert made.of(memoryview(bytearray(CLUSTER + 512))) == ZERO * 2
    assert made.of(memoryview(b"")) == b""


@EACH
def test_threads_do_not_disturb_each_other(made: Hashing, reference: object) -> None:
    pieces = [memoryview(os.urandom(4 * CLUSTER)) for _ in range(16)]
    expected = [made.of(piece) for piece in pieces]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(made.of, pieces * 50)) == expected * 50


def test_another_key_makes_other_digests() -> None:
    data = memoryview(os.urandom(CLUSTER))
    one, other = fresh(), fresh()
    assert one != other
    assert one.of(data) != other.of(data)


def test_what_a_file_names_makes_the_same_digests() -> None:
    data = memoryview(os.urandom(CLUSTER))
    for made in (Blake3(), fresh()):
        assert KINDS[made.kind].key_size == len(made.key)
        again = KINDS[made.kind](made.key)
        assert again == made
        assert again.of(data) == made.of(data)
        assert len(again.of(data)) == DIGEST
