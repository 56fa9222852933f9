# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON documents of the repository: checked against their schema when read, replaced atomically when written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema

from overkeep import __version__
from overkeep.blocks.errors import TargetStale, on_target
from overkeep.blocks.files import sync_folder
from overkeep.repository.errors import DocumentDamaged, RepositoryTooNew
from overkeep.units import MIB

VERSION = 1
"""Version of the format."""

WRITER = f"overkeep {__version__}"

_MOST_BYTES = 16 * MIB
_ATTEMPTS = 3
_REMEMBERED = 20_000  # documents, of some 100 bytes each
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

Document = dict[str, Any]


def envelope(kind: str) -> Document:
    """What every document begins with."""
    return {"kind": kind, "version": VERSION, "writer": WRITER}


def read(path: Path, kind: str) -> Document | None:
    """Read a document of `kind`, or return None when there is none.

    Raises `DocumentDamaged`, `RepositoryTooNew`, or the typed error of the target.
    """
    raw = read_bytes(path)
    if raw is None:
        return None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DocumentDamaged(path=path, reason=f"it is not JSON ({error})") from error
    if not _sound.knows(kind, raw):
        check(document, kind, path)
        _sound.add(kind, raw)
    return dict(document)


def check(document: Any, kind: str, path: Path) -> None:
    """Raise unless `document` is a document of `kind` that this release can read; `path` is for errors."""
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise DocumentDamaged(path=path, reason=f"it is not a document of kind {kind!r}")
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise RepositoryTooNew(path=path, version=version, known=VERSION)
    fault = jsonschema.exceptions.best_match(_validator(kind).iter_errors(document))
    if fault is not None:
        raise DocumentDamaged(path=path, reason=f"{fault.json_path}: {fault.message}"[:500])


class _Sound:
    """Remembers the contents of documents that were checked: a backup reads each manifest several times."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def knows(self, kind: str, raw: bytes) -> bool:
        """Whether a document of this kind and content was checked."""
        return _digest(kind, raw) in self._digests

    def add(self, kind: str, raw: bytes) -> None:
        """Remember one; when there are many, all others are forgotten."""
        if len(self._digests) >= _REMEMBERED:
            self._digests.clear()
        self._digests.add(_digest(kind, raw))


def _digest(kind: str, raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=16, person=kind.encode()[:16]).digest()


_sound = _Sound()


@cache
def _validator(kind: str) -> Any:
    text = resources.files("overkeep.repository").joinpath("schemas", f"{kind}.json").read_text()
    return jsonschema.Draft202012Validator(json.loads(text))


def read_bytes(path: Path) -> bytes | None:
    """Read a small file whole; None when it does not exist. Symbolic links are not followed."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return _read_once(path)
        except TargetStale:  # replaced on the server while it was open here: the name leads to the new one
            continue
    return _read_once(path)


def _read_once(path: Path) -> bytes | None:
    with on_target(path):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise DocumentDamaged(path=path, reason="it is a symbolic link") from error
            raise
        try:
            return _content(handle, path)
        finally:
            os.close(handle)


def _content(handle: int, path: Path) -> bytes:
    """All of an open file, mostly with one call; it may be another length by now than when it was opened."""
    seen = os.fstat(handle)
    if not stat.S_ISREG(seen.st_mode):
        raise DocumentDamaged(path=path, reason="it is not a regular file")
    raw = b"" if seen.st_size > _MOST_BYTES else os.read(handle, seen.st_size + 1)
    while len(raw) != seen.st_size and len(raw) <= _MOST_BYTES and (more := os.read(handle, _MOST_BYTES)):
        raw += more
    if len(raw) > _MOST_BYTES:
        raise DocumentDamaged(path=path, reason=f"it is larger than {_MOST_BYTES} bytes")
    return raw


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document in place of what is there, if anything: durable and whole, or not at all."""
    write_bytes(path, _checked(document, path))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file as `write` does."""
    with on_target(path):
        temporary = _temporary(path, content)
        try:
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def create(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document unless there is one; of several programs that do so at once, one wins.

    Read it afterwards: it may be the other's.
    """
    content = _checked(document, path)
    with on_target(path):
        temporary = _temporary(path, content)
        try:
            _link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def _link(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not path.exists():  # without links, the last of several wins; what is there already always stays
            temporary.rename(path)


def _checked(document: Mapping[str, Any], path: Path) -> bytes:
    """The content of a document, which who reads it need not check again; raises as `check` does."""
    kind, content = document["kind"], _encoded(document)
    check(document, kind, path)
    if json.loads(content) == document:
        _sound.add(kind, content)
    return content


def _encoded(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _temporary(path: Path, content: bytes) -> Path:
    """Write `content` durably under a name of its own beside `path`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb", buffering=0) as file:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
