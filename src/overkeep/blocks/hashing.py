# SPDX-License-Identifier: GPL-3.0-or-later
"""What the digest of a cluster is: the kinds that a file of digests may name (docs/format/1.md, "Digests")."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overkeep.blocks.buffers import CLUSTER, ZEROES, zero_runs

DIGEST = 16
"""Bytes of a digest, of whatever kind."""

ZERO = blake3(ZEROES).digest(DIGEST)
"""Stands for a cluster of zeroes, in files of every kind."""


class Hashing(ABC):
    """One way to make digests. Two are equal when they make the same ones. Safe for several threads."""

    kind: ClassVar[int]
    """Its number in the header of a file."""
    key_size: ClassVar[int]
    """Bytes of its key, which follows on the header."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def of(self, data: memoryview) -> bytes:
        """Digests of all clusters of `data`, one after the other; a short last one counts as filled up with zeroes."""
        parts: list[bytes] = []
        for start, end, zero in zero_runs(data):
            if zero:
                parts.append(ZERO * -(-(end - start) // CLUSTER))
            else:
                parts.extend(self._of_each(data, start, end))
        return b"".join(parts)

    def _of_each(self, data: memoryview, start: int, end: int) -> list[bytes]:
        whole = end - (end - start) % CLUSTER
        digests = [self._of_cluster(data[at : at + CLUSTER]) for at in range(start, whole, CLUSTER)]
        if whole < end:
            digests.append(self._of_cluster(bytes(data[whole:end]).ljust(CLUSTER, b"\0")))
        return digests

    @abstractmethod
    def _of_cluster(self, cluster: memoryview | bytes) -> bytes:
        """Digest of one whole cluster."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hashing) and (self.kind, self.key) == (other.kind, other.key)

    def __hash__(self) -> int:
        return hash((self.kind, self.key))


class Blake3(Hashing):
    """BLAKE3 cut to 128 bits: what the first releases wrote."""

    kind = 1
    key_size = 0

    def __init__(self, key: bytes = b"") -> None:
        super().__init__(key)

    def _of_cluster(self, cluster: memoryview | bytes) -> bytes:
        return blake3(cluster).digest(DIGEST)


class Gmac(Hashing):
    """GMAC of AES-128 under a key that is the chain's own: as hard to outwit as a hash, at a third of its cost.

    The nonce is always the same, so these are no authentication codes to show around: who has two digests can find
    others. They lie beside the data that they are of, and nobody who only writes to the disk sees them.
    """

    kind = 2
    key_size = 16
    _NONCE = bytes(12)

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self._cipher = AESGCM(key)

    def _of_cluster(self, cluster: memoryview | bytes) -> bytes:
        return self._cipher.encrypt(self._NONCE, b"", cluster)


KINDS: Mapping[int, type[Hashing]] = {each.kind: each for each in (Blake3, Gmac)}
"""The kinds that this release knows, by their numbers."""


def fresh() -> Hashing:
    """Return what makes the digests of a new chain."""
    return Gmac(secrets.token_bytes(Gmac.key_size))
