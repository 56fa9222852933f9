# SPDX-License-Identifier: GPL-3.0-or-later
"""When a policy asks for a full backup, and when a run is tried again."""

from __future__ import annotations

import datetime as dt
from typing import get_args

import pytest

from overkeep.blocks.qcow2.form import LARGEST_CLUSTER, PLAIN, SMALLEST_CLUSTER, Form
from overkeep.model.points import BackupKind
from overkeep.model.policy import ClusterSize, Copying, Policy, Terms
from overkeep.model.retention import Retention
from overkeep.mover.orders import CopyOrder

ENDED = dt.datetime(2026, 5, 1, 22, 30, tzinfo=dt.UTC)

# (terms, images of the chain, incrementals since the last full backup, the reason)
FULL = {
    "a workload without a policy": (Terms(), 255, 254, ""),
    "the longest chain there is": (Terms(), 256, 255, "its chain has reached 256 images"),
    "never": (Terms(full_every=None), 20, 900, ""),
    "always": (Terms(full_every=0), 1, 0, "the policy asks for full backups"),
    "not yet": (Terms(full_every=3), 3, 2, ""),
    "after three": (Terms(full_every=3), 4, 3, "the policy asks for a full backup after 3 incrementals"),
    "merged away": (Terms(full_every=3), 2, 3, "the policy asks for a full backup after 3 incrementals"),
    "nobody counted": (Terms(full_every=3), 4, None, "the policy asks for a full backup after 3 incrementals"),
    "nobody counted, not yet": (Terms(full_every=3), 3, None, ""),
    "a chain of its own length": (Terms(longest_chain=5), 5, 4, "its chain has reached 5 images"),
    "shorter than that": (Terms(longest_chain=5), 4, 3, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", FULL)
def test_why_full(case: str) -> None:
    terms, chain, since, reason = FULL[case]
    assert terms.why_full(chain=chain, since_full=since) == reason


def test_tries_wait_twice_as_long_each_time() -> None:
    policy = Policy(name="p", retries=3, retry_wait=10)
    waits = [policy.retry_at(ENDED, tries) for tries in (1, 2, 3, 4)]
    assert waits == [*(ENDED + dt.timedelta(minutes=minutes) for minutes in (10, 20, 40)), None]
    assert Policy(name="p").retry_at(ENDED, 1) is None


def test_terms_are_those_of_the_policy() -> None:
    policy = Policy(
        name="p",
        retention=Retention(last=3),
        backup_kind=BackupKind.HYBRID,
        full_every=7,
        longest_chain=9,
        copying=Copying(compression="zstd"),
    )
    assert policy.terms == Terms(
        retention=Retention(last=3),
        backup_kind=BackupKind.HYBRID,
        full_every=7,
        longest_chain=9,
        copying=Copying(compression="zstd"),
    )
    assert Policy(name="p").terms == Terms()


def test_a_policy_may_have_the_clusters_that_images_may_have() -> None:
    sizes = get_args(ClusterSize)
    assert sizes == get_args(CopyOrder.model_fields["cluster"].annotation)
    assert [Form(cluster=size).cluster for size in sizes] == list(sizes)
    assert (sizes[0], sizes[-1]) == (SMALLEST_CLUSTER, LARGEST_CLUSTER)
    assert Copying().cluster_size == PLAIN.cluster
