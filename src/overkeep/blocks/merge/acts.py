# SPDX-License-Identifier: GPL-3.0-or-later
"""The acts of a merge in their order, and how one that was left unfinished goes on (docs/format/1.md)."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from overkeep.blocks.digesting import make_digests
from overkeep.blocks.errors import ImageDamaged, MergeGarbled, on_target
from overkeep.blocks.expected import open_digests
from overkeep.blocks.files import sync_folder
from overkeep.blocks.merge.folder import backings, header_of, opened, stored, unlink, unlink_merged
from overkeep.blocks.merge.intent import Intent, Journal, Phase
from overkeep.blocks.merge.making import Extender, Watch, cluster_of, decide, is_switched, rewrite
from overkeep.blocks.merge.plan import Run, plan
from overkeep.blocks.merge.sums import renew_hidden, write_digests
from overkeep.blocks.qcow2.carrier import repeat_switch
from overkeep.blocks.qcow2.view import View
from overkeep.logs import fields

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MergeStats:
    """What was done: bytes `moved`, bytes `freed` on the target, names of images `removed`; `stages` as in `Stages`."""

    moved: int
    freed: int
    removed: tuple[str, ...]
    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)


def merge_away(folder: Path, remove: Collection[str], *, journal: Journal, watch: Watch) -> MergeStats:
    """Remove images of `folder`, whose data go into the images above them; finish what is unfinished first.

    Whatever is raised, every image that stays reads as before, and doing it again goes on.
    Raises `ImageShared`, `MergeDiffers`, `MergeGarbled`, `Cancelled`, `WriterReplaced` and the errors of images and of
    the target.
    """
    started = time.monotonic()
    merger = _Merger(folder, journal, watch)
    merger.run(remove)
    seconds = time.monotonic() - started
    return MergeStats(
        moved=merger.moved,
        freed=merger.freed,
        removed=tuple(merger.removed),
        seconds=seconds,
        stages=watch.stages.seconds,
    )


class _Merger:
    def __init__(self, folder: Path, journal: Journal, watch: Watch) -> None:
        self._folder = folder
        self._journal = journal
        self._watch = watch
        self.moved = self.freed = 0
        self.removed: list[str] = []

    def run(self, remove: Collection[str]) -> None:
        """Finish, unlink, merge."""
        pending = self._journal.load()
        if pending is not None:
            log.info("merge goes on %s", fields(image=pending.run.newest, phase=pending.phase, done=pending.done))
            self._merge(pending.run, pending)
        decided = plan(backings(self._folder, remove), remove)
        with self._counting(decided.leaves):
            unlink(self._folder, decided.leaves)
        for run in decided.runs:
            self._watch.check()
            self._merge(run, None)

    def _merge(self, run: Run, pending: Intent | None) -> None:
        """Merge a run, from its beginning or from where it was left."""
        with self._counting(run.removed, run.newest), ExitStack() as stack:
            if pending is not None and self._is_renamed(run):
                repeat_switch(self._folder / run.newest)
                extender = None
            else:
                extender = self._make(run, pending, stack)
            sync_folder(self._folder)
            self._journal.check()
            if pending is not None:
                self._restore_digests(run)
            with self._watch.stages.spent("target"):
                unlink_merged(self._folder, run)
                if extender is not None:
                    extender.give_back()
            self._journal.clear()
        log.info("merge done %s", fields(image=run.newest, removed=len(run.removed), moved=self.moved))

    def _restore_digests(self, run: Run) -> None:
        """Make those of the merged image anew when they were lost after they were composed."""
        if not self._has_digests(run.newest, header_of(self._folder, run.newest).size):
            make_digests(self._folder, run.newest, cancelled=self._watch.cancelled)

    def _has_digests(self, name: str, size: int) -> bool:
        digests = open_digests(self._folder, name, size)
        if digests is not None:
            digests.close()
        return digests is not None

    def _is_renamed(self, run: Run) -> bool:
        """Whether the newest image is the merged one already."""
        return header_of(self._folder, run.newest).backing == run.base

    def _make(self, run: Run, pending: Intent | None, stack: ExitStack) -> Extender | None:
        """Let the name of the newest image be the merged one; return the extender, closed by `stack`."""
        extender = None
        if pending is not None and is_switched(self._folder, pending):
            repeat_switch(self._folder / str(pending.carrier))
            intent = pending
        else:
            with opened(self._folder, run) as view:
                begun = self._resumed(view, pending) if pending is not None else self._begin(view, run)
                with self._giving_up(view, begun):
                    intent = self._with_digests(view, begun)
                    if intent.carrier is None:
                        self.moved += rewrite(self._folder, view, intent, watch=self._watch)
                    else:
                        extender = stack.enter_context(closing(Extender(self._folder, view, intent)))
                        extender.run(self._journal, self._watch)
                        self.moved += extender.moved
        if intent.carrier not in (None, run.newest):
            self._journal.check()
            self._rename(str(intent.carrier), run.newest)
        return extender

    @contextmanager
    def _giving_up(self, view: View, intent: Intent) -> Iterator[None]:
        """End a merge that cannot be finished rightly, before the switch: what stays is then as if it had not begun.

        Left pending, it would keep the folder from every other change.
        """
        try:
            yield
        except (ImageDamaged, MergeGarbled) as error:
            log.warning("merge given up %s", fields(image=intent.run.newest, reason=repr(str(error))))
            self._journal.check()
            names = [image.name for image in view.images]
            if intent.carrier in names[1:]:
                index, cluster = names.index(str(intent.carrier)), cluster_of(view, intent)
                renew_hidden(self._folder, view, index=index, cluster=cluster, cancelled=self._watch.cancelled)
            self._journal.clear()
            raise

    def _resumed(self, view: View, pending: Intent) -> Intent:
        """A merge as it goes on: earlier releases chose a carrier for a disk of 0 bytes, and could not end."""
        return pending if view.size else replace(pending, carrier=None, carrier_size=0)

    def _begin(self, view: View, run: Run) -> Intent:
        with self._watch.stages.spent("tables"):
            intent = decide(self._folder, view, run, watch=self._watch)
        self._journal.begin(intent)
        log.info("merge begins %s", fields(image=run.newest, carrier=intent.carrier, bytes=intent.to_move))
        return intent

    def _with_digests(self, view: View, intent: Intent) -> Intent:
        if intent.phase is not Phase.DIGESTS and self._has_digests(intent.run.newest, view.size):
            return intent
        cluster = cluster_of(view, intent)
        write_digests(self._folder, view, cluster=cluster, cancelled=self._watch.cancelled, stages=self._watch.stages)
        after = replace(intent, phase=Phase.COPYING)
        self._journal.save(after)
        return after

    def _rename(self, carrier: str, newest: str) -> None:
        with on_target(self._folder / carrier):
            try:
                (self._folder / carrier).rename(self._folder / newest)
            except FileNotFoundError:  # NFS says so of a rename that is sent again because its answer was lost
                if carrier in backings(self._folder):
                    raise

    @contextmanager
    def _counting(self, removed: Collection[str], *others: str) -> Iterator[None]:
        """Count what goes, once it is gone."""
        names = (*removed, *others)
        before = stored(self._folder, names)
        yield
        self.freed += before - stored(self._folder, names)
        self.removed += removed
