# SPDX-License-Identifier: GPL-3.0-or-later
"""`kill -9` of the real controller at random instants, with the lab's engine and real movers."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from demo.deployment import BIN, Deployment, Lab, deployed, run, wait_until
from tests.system.jobs import end
from tests.system.manager import Manager
from tests.system.test_bad_days import nothing_left

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.xdist_group("system"), pytest.mark.timeout(1800)]

KILLS = int(os.environ.get("OVERKEEP_KILLS", "6"))


def wounded(product: Deployment, rng: random.Random, *words: str) -> str:
    """Begin a job, kill the controller some time later, start it again; return how the job ended."""
    job = product.overkeep(*words, "--no-wait", "--json").json()["id"]
    time.sleep(rng.uniform(0, 4))  # the instant is what is tried out
    product.services["controller"].stop(signal.SIGKILL)
    product.start_controller()
    return end(product, job)


def test_no_instant_of_a_death_costs_a_point(lab: Lab, lab_directory: Path, manager: Manager) -> None:
    """Each job ends well, nothing stays open, each point is whole, and the last one is the disk."""
    seed = int(os.environ.get("OVERKEEP_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"seed: {seed} (OVERKEEP_SEED)")
    rng = random.Random(seed)
    with deployed(lab, lab_directory / "wounded", export="wounded") as product:
        product.overkeep("workload", "create", "wounds", "--vm", "bare")
        product.overkeep("policy", "create", "few", "--keep-last", "3")
        product.overkeep("workload", "set-policy", "wounds", "few")
        for number in range(KILLS):
            lab.block_io("bare", "vda", f"write -P {number + 1} {number * 3}M 2M")
            assert wounded(product, rng, "backup", "wounds") == "succeeded"
            wait_until(lambda: manager.open_things() == [], what="the end of everything that was open", seconds=120)
            assert len(manager.checkpoints("bare")) == 1
        points = product.overkeep("points", "--json").json()
        assert len(points) == min(3, KILLS)
        assert wounded(product, rng, "restore", points[-1]["id"], "--name", "bare-again") == "succeeded"
        [restored], [disk] = manager.disks("bare-again"), manager.disks("bare")
        run(["qemu-img", "compare", "-q", "-U", manager.volume(restored), manager.volume(disk)])
        found = run([BIN / "overkeep-mover", "verify", "--repository", product.repository])
        assert found.status == 0
        nothing_left(product, manager)
