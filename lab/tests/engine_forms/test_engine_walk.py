# SPDX-License-Identifier: GPL-3.0-or-later
"""Every document of the engine, in both forms, held against what the SDK knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from lab.tests.engine_core.conftest import Lab, serve
from lab.tests.engine_forms.documents import Judge
from lab.tests.engine_forms.furniture import furnish
from lab.tests.engine_forms.sdk_model import load
from lab.tests.engine_forms.walk import Walk


@pytest.fixture
def furnished(tmp_path: Path) -> Iterator[tuple[Lab, httpx.Client]]:
    with serve(tmp_path) as lab, lab.http() as http:
        furnish(lab, http)
        yield lab, http


def test_every_document_is_what_the_sdk_knows(furnished: tuple[Lab, httpx.Client]) -> None:
    _, http = furnished
    walk = Walk(http, Judge(load()))
    walk.go()
    assert not walk.faults, "\n".join(sorted(walk.faults))
    assert len(walk.seen) > 500
    assert len(walk.actions) > 40
