# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that changes files passes a gate: it may stop, fail, be cut short, or be written down for a replay."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from overkeep.blocks import files, rawfile

SECTOR = 512
_NEW_FILES = 1 << 64  # above all numbers that file systems give


@dataclass(frozen=True)
class Effect:
    """One change: `kind` of it, `file` by inode or `names` in the folder, and what belongs to it."""

    kind: str
    file: int = 0
    names: tuple[str, ...] = ()
    offset: int = 0
    length: int = 0
    data: bytes = b""


Act = Callable[[], Any]
Gate = Callable[[Effect, Act], Any]
DATA, NAMES = ("write", "truncate", "punch"), ("create", "rename", "unlink", "link")


class _Doors:
    """The functions through which the product changes files, each with a gate in front of it."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._lock = threading.RLock()
        self._real = {
            name: getattr(os, name) for name in ("pwritev", "pwrite", "fsync", "open", "ftruncate", *NAMES[1:])
        }
        self._punch = files.punch

    def _through(self, effect: Effect, act: Act) -> Any:
        with self._lock:
            return self._gate(effect, act)

    def pwrite(self, handle: int, data: Any, offset: int) -> Any:
        return self.pwritev(handle, [data], offset)

    def pwritev(self, handle: int, pieces: Any, offset: int) -> Any:
        data = b"".join(bytes(piece) for piece in pieces)
        effect = Effect("write", os.fstat(handle).st_ino, offset=offset, length=len(data), data=data)
        if isinstance(self._gate, Short):
            return self._gate.write(handle, data, offset)
        if isinstance(self._gate, Killer) and self._gate.half and self._gate.is_next():
            self._real["pwritev"](handle, [data[: len(data) // 2 // SECTOR * SECTOR]], offset)
        return self._through(effect, lambda: self._real["pwritev"](handle, pieces, offset))

    def fsync(self, handle: int) -> Any:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.is_dir():
            return self._through(Effect("sync names"), lambda: self._real["fsync"](handle))
        content = b""
        if isinstance(self._gate, Recorder) and path.suffix == ".tmp":  # documents are written by Python's own files
            content = path.read_bytes()
        effect = Effect("sync", os.fstat(handle).st_ino, (path.name,), data=content)
        return self._through(effect, lambda: self._real["fsync"](handle))

    def open(self, path: Any, flags: int, *rest: Any, **more: Any) -> Any:
        def act() -> Any:
            return self._real["open"](path, flags, *rest, **more)

        return self._through(Effect("create", names=(Path(path).name,)), act) if flags & os.O_CREAT else act()

    def named(self, kind: str) -> Callable[..., Any]:
        def call(*paths: Any, **more: Any) -> Any:
            names = tuple(Path(path).name for path in paths)
            return self._through(Effect(kind, names=names), lambda: self._real[kind](*paths, **more))

        return call

    def ftruncate(self, handle: int, size: int) -> Any:
        effect = Effect("truncate", os.fstat(handle).st_ino, length=size)
        return self._through(effect, lambda: self._real["ftruncate"](handle, size))

    def punch(self, handle: int, offset: int, length: int) -> Any:
        effect = Effect("punch", os.fstat(handle).st_ino, offset=offset, length=length)
        return self._through(effect, lambda: self._punch(handle, offset, length))

    def close(self) -> None:
        for name in self._real:
            setattr(os, name, getattr(self, name, None) or self.named(name))
        files.punch = rawfile.punch = self.punch

    def reopen(self) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)
        files.punch = rawfile.punch = self._punch


@contextmanager
def gated(gate: Gate) -> Iterator[None]:
    """Let every effect of the body pass `gate`, one at a time; it calls the act, or does not."""
    doors = _Doors(gate)
    doors.close()
    try:
        yield
    finally:
        doors.reopen()


@dataclass
class Counter:
    """Counts effects."""

    count: int = 0

    def __call__(self, _: Effect, act: Act) -> Any:
        self.count += 1
        return act()


@dataclass
class Killer:
    """Kills the process at effect number `at`: before it, after it, or in the middle of a write (`half`)."""

    at: int
    after: bool = False
    half: bool = False
    count: int = 0

    def is_next(self) -> bool:
        """Whether the next effect is the last."""
        return self.count + 1 == self.at

    def __call__(self, _: Effect, act: Act) -> Any:
        self.count += 1
        if self.count != self.at:
            return act()
        if self.after:
            act()
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()
        raise AssertionError("killed")


@dataclass
class Failing:
    """Lets effect number `at` fail, and `lasting` also all those after it."""

    at: int
    number: int
    lasting: bool = False
    count: int = 0

    def __call__(self, _: Effect, act: Act) -> Any:
        self.count += 1
        if self.count == self.at or (self.lasting and self.count > self.at):
            raise OSError(self.number, os.strerror(self.number))
        return act()


class Short:
    """Writes only a part of what it is given, in whole sectors, as a file system may."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._pwritev = os.pwritev

    def write(self, handle: int, data: bytes, offset: int) -> int:
        """Write the beginning of `data`."""
        with self._lock:
            sectors = self._rng.randint(1, max(1, len(data) // SECTOR))
        return self._pwritev(handle, [data[: sectors * SECTOR]], offset)

    def __call__(self, _: Effect, act: Act) -> Any:
        return act()


class Stepping:
    """Lets work go on for as many effects as it is told to, and stand still between."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._allowed = 0
        self._stands = False  # in front of an effect
        self._ended = False

    def let(self, count: int) -> None:
        """Let that many effects pass; returns when it stands again, or has ended."""
        with self._changed:
            for _ in range(count):
                self._changed.wait_for(self._still)
                self._allowed, self._stands = self._allowed + 1, False
                self._changed.notify_all()
            self._changed.wait_for(self._still)

    def _still(self) -> bool:
        return self._stands or self._ended

    @contextmanager
    def ending(self) -> Iterator[None]:
        """The work; nobody waits for it any more when it ends."""
        try:
            yield
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let all effects pass at the end of the body."""
        try:
            yield
        finally:
            with self._changed:
                self._allowed = sys.maxsize
                self._changed.notify_all()

    def __call__(self, _: Effect, act: Act) -> Any:
        with self._changed:
            self._stands = self._allowed == 0
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._allowed > 0)
            self._allowed, self._stands = self._allowed - 1, False
        return act()


@dataclass
class Recorder:
    """Writes down what was done, in its order."""

    effects: list[Effect] = field(default_factory=list)
    _ids: dict[int, int] = field(default_factory=dict)

    def __call__(self, effect: Effect, act: Act) -> Any:
        result = act()
        if effect.kind == "create":
            self._made(os.fstat(result).st_ino, effect.names)
            return result
        if effect.kind == "sync" and effect.data:
            self._made(effect.file, effect.names)
            self._add(Effect("write", effect.file, length=len(effect.data), data=effect.data))
        self._add(effect)
        return result

    def _made(self, inode: int, names: tuple[str, ...]) -> None:
        """A file system gives the number of a file that is gone to another one."""
        self._ids[inode] = _NEW_FILES + len(self.effects)
        self._add(Effect("create", inode, names))

    def _add(self, effect: Effect) -> None:
        self.effects.append(replace(effect, file=self._ids.get(effect.file, effect.file)))


class PowerCut:
    """What a folder may look like after the power failed: it was as `before`, then came `effects`.

    `names` are the files of the folder in which that was done, by the numbers that they had.

    What was synced is there. Of what was not, any part of the data may be, sector by sector, and any of the changes of
    names.
    """

    def __init__(self, before: Path, names: dict[str, int], effects: list[Effect]) -> None:
        self.effects = effects
        self._before = before
        self._names = names

    def restore(self, folder: Path, instant: int, rng: random.Random) -> None:
        """Make `folder` as it may be when the power fails behind `instant` effects."""
        past = self.effects[:instant]
        names = dict(self._names)
        kept = [effect for index, effect in enumerate(past) if effect.kind in NAMES and self._named(past, index)]
        loose = [effect for index, effect in enumerate(past) if effect.kind in NAMES and not self._named(past, index)]
        if rng.random() < 0.5:
            loose = loose[: rng.randint(0, len(loose))]
        else:
            loose = [effect for effect in loose if rng.random() < 0.5]
        for effect in kept + loose:
            _rename(names, effect)
        contents = {
            inode: bytearray((self._before / name).read_bytes())
            for name, inode in self._names.items()
            if inode in {effect.file for effect in past if effect.kind in DATA}
        }
        for index, effect in enumerate(past):
            if effect.kind in DATA:
                synced = any(later.kind == "sync" and later.file == effect.file for later in past[index:])
                _apply(contents.setdefault(effect.file, bytearray()), effect, None if synced else rng)
        sources = {inode: self._before / name for name, inode in self._names.items()}
        for name, inode in names.items():
            if inode in contents or inode not in sources:
                (folder / name).write_bytes(contents.get(inode, b""))
            else:
                shutil.copyfile(sources[inode], folder / name)

    @property
    def switches(self) -> list[int]:
        """Numbers of the effects that write a header in place of another."""
        return [
            index
            for index, effect in enumerate(self.effects)
            if (effect.kind, effect.offset, effect.length) == ("write", 0, SECTOR)
        ]

    def _named(self, past: list[Effect], index: int) -> bool:
        return any(later.kind == "sync names" for later in past[index:])


def _rename(names: dict[str, int], effect: Effect) -> None:
    if effect.kind == "create":
        names[effect.names[0]] = effect.file
    elif effect.kind == "unlink":
        names.pop(effect.names[0], None)
    elif effect.names[0] in names:
        names[effect.names[1]] = names[effect.names[0]]
        if effect.kind == "rename":
            del names[effect.names[0]]


def _apply(content: bytearray, effect: Effect, loss: random.Random | None) -> None:
    if effect.kind == "truncate":
        if loss is None or loss.random() < 0.5:
            del content[effect.length :]
            content.extend(bytes(effect.length - len(content)))
        return
    data = bytes(effect.length) if effect.kind == "punch" else effect.data
    missing = effect.offset + len(data) - len(content)
    if effect.kind == "write" and missing > 0:
        content.extend(bytes(missing))
    share = 1.0 if loss is None else loss.choice((0.0, 0.5, 1.0))
    step = SECTOR if share == 0.5 else max(1, len(data))
    for at in range(0, len(data), step):
        if loss is None or loss.random() < share:
            piece = data[at : at + step]
            content[effect.offset + at : effect.offset + at + len(piece)] = piece
