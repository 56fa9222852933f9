# SPDX-License-Identifier: GPL-3.0-or-later
"""How a process that runs for months looks for garbage."""

from __future__ import annotations

import gc

# A page of a list makes tens of thousands of objects and forgets them all without a look. By default a look comes with
# every 700 of them and one at everything soon after, which takes as long as the page.
_NEW, _YOUNG, _OLD = 10_000, 20, 50


def settle() -> None:
    """Call this once all that stays is there: a look for garbage need not go through it again and again."""
    gc.freeze()
    gc.set_threshold(_NEW, _YOUNG, _OLD)
