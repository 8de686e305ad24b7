"""A new kind of network is one row of a table: all that must know it finds it there."""

import json
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from full import in_full
from test_agents import Catch
from updates import figures_after

from impala_redis.common.acting.policies import make_policy
from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.run.config import Config, find_setting
from impala_redis.common.run.spec import RunSpec, make_spec
from support import ROOT

# The only change: everything is imported after it, as it would be with one more row in the file.
ADD_A_ROW = """
from impala_redis.common.run.kinds import (NETWORKS, Convolution, NetworkKind)
NETWORKS["made-up"] = {row}
import test_network_kind
test_network_kind.train_in_a_process_of_its_own()
"""
ROWS = {
    "plain": "NetworkKind(help='two', "
    "convolutions=(Convolution(4, 5, 3), Convolution(6, 2, padding=1)))",
    "residual": "NetworkKind(help='three in a residual block', residual_blocks=1, "
    "convolutions=(Convolution(4, 3, padding=1),) * 3)",
    "without pictures, in torch": "NetworkKind(help='hidden layers alone')",
}


@pytest.mark.parametrize("row", ["plain", *in_full("residual", "without pictures, in torch")])
def test_a_row_is_all_that_a_new_kind_of_network_needs(row: str) -> None:
    # when a program that has one row more plays an unroll and learns from it
    places = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests" / "learning")])
    done = subprocess.run(
        [sys.executable, "-c", ADD_A_ROW.format(row=ROWS[row])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=100,
    )

    # then
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["choices"][-1] == "made-up"
    assert "made-up: " in found["help"]
    assert found["policy"] == "NetworkPolicy"
    assert found["loss"] == pytest.approx(found["loss"])  # a number
    assert found["moved"] == found["parameters"]


def train_in_a_process_of_its_own() -> None:
    """Plays one unroll of Catch with the made-up network, learns from it, and prints what it saw.

    All of it goes through what programs use: a setting, the spec as JSON, a policy, an update.
    """
    gymnasium.register("Catch-v0", entry_point=Catch)
    config = Config().replace(
        {"network": "made-up", "hidden_sizes": [8], "envs_per_actor": 4, "batch_size": 4}
    )
    environment = VectorEnvironment("Catch-v0", 4)
    made = make_spec("kinds", config, environment.observation, environment.action)
    spec = RunSpec.from_json(made.to_json())
    learner = Learner(config, TorchEngine(spec, config))
    before = learner.weights()
    actor = Actor(spec, environment, "host-1", 1)
    actor.policy.load(1, before)
    block = actor.unroll()
    batch = Batch(empty_trajectory(spec, 4))
    for rows, played in zip(batch.rows, block.trajectory, strict=True):
        rows[:] = played
    batch.filled, batch.frames, batch.versions = 4, block.trajectory.frames, [1] * 4
    figures = figures_after(learner, batch)
    after = learner.weights()
    network = find_setting("network")
    report = {
        "choices": network.choices,
        "help": network.help,
        "policy": type(make_policy(spec, np.random.default_rng(0))).__name__,
        "loss": figures["total_loss"],
        "parameters": sorted(spec.parameter_shapes()),
        "moved": sorted(name for name in after if not np.array_equal(before[name], after[name])),
    }
    sys.stdout.write(json.dumps(report))
    actor.close()
