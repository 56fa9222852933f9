# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look at an installation found: whether each part of it is as it must be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a part is, best first."""

    OK = "ok"
    WARNING = "warning"  # it works, and will not for long, or not for all
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was looked at (`area`, `subject`), how it is, and one sentence; when it is not well, also what to do."""

    area: str
    subject: str
    verdict: Verdict
    text: str


def worst(findings: Iterable[Finding]) -> Verdict:
    """The worst of all verdicts."""
    verdicts = list(Verdict)
    return max((finding.verdict for finding in findings), key=verdicts.index, default=Verdict.OK)
