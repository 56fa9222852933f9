# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks images together: within one time for all of them, and with one progress."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from overkeep.blocks.verify import Findings, Sample, held_by, verify_image
from overkeep.mover.copy_terms import Watch
from overkeep.mover.orders import Progress

Place = tuple[Path, str]
"""An image: its folder and its bare name."""


class ImageChecks:
    """Checks some images, then perhaps more, until the end of the `sample`; `watch` hears how far all of it is."""

    def __init__(self, sample: Sample, watch: Watch) -> None:
        self._sample = sample
        self._watch = watch
        self._total = 0  # bytes to be read, of all images that were given so far
        self._passed = 0  # of those, of the images that are done
        self._read = 0

    @property
    def over(self) -> bool:
        """Whether nothing is begun any more."""
        return self._sample.over

    def __call__(self, images: Sequence[Place]) -> list[Findings]:
        """What is found in each of `images`, in their order; those for which there was no time are not `reached`.

        With an end they are gone through in no order: otherwise it would always be the same ones that are reached.
        """
        held = {image: self._held(image) for image in images}
        self._total += sum(map(self._planned, held.values()))
        order = list(held)
        if self._sample.end is not None:
            random.SystemRandom().shuffle(order)
        found = {image: self._check(image, held[image]) for image in order}
        return [found[image] for image in images]

    def _held(self, image: Place) -> int:
        """Bytes that an image holds; not known, as 0, once the time is over."""
        self._watch.check()
        return 0 if self.over else held_by(*image)

    def _planned(self, held: int) -> int:
        """About how many bytes of an image are read."""
        return int(held * self._sample.share)

    def _check(self, image: Place, held: int) -> Findings:
        self._watch.check()
        folder, name = image
        if self.over:
            return Findings(image=name, held=held, reached=False)
        planned = self._planned(held)

        def tell(covered: int, _: int) -> None:
            # a sample is chosen by chance and may be larger than its share
            self._tell(min(covered, planned), read=covered)

        found = verify_image(folder, name, sample=self._sample, progress=tell, cancelled=lambda: self._watch.stopped)
        self._passed, self._read = self._passed + planned, self._read + found.checked
        self._tell(0, read=0)
        return replace(found, held=max(found.held, held))

    def _tell(self, done: int, *, read: int) -> None:
        progress = Progress(done=self._passed + done, total=self._total, moved=self._read + read)
        self._watch.progress(progress)
