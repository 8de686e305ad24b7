"""Run directories as a learner leaves them at its start, without a learner's process."""

from pathlib import Path
from typing import Any

import numpy as np

from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.learning.engines import make_engine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.networks.own_probe import find_out
from impala_redis.common.records import checkpoint
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.config import Config
from impala_redis.common.run.saved_spec import MADE_BY
from impala_redis.common.run.spec import RunSpec, make_spec


def save_run(folder: Path, env: str, updates: int = 0, **settings: Any) -> RunSpec:
    """Leaves a checkpoint of a network whose actions differ by the observation; the run's spec."""
    config = Config().replace({"env": env, **settings})
    made_by = config.environment
    stack, variant = made_by.frame_stack, made_by.variant
    environment = VectorEnvironment(env, 1, frame_stack=stack, variant=variant)
    environment.close()
    found = (environment.observation, environment.action, environment.spaces)
    spec = make_spec(folder.name, config, *found, find_out)
    engine = make_engine("auto", "cpu", 1, spec, config)
    learner = Learner(config, engine)
    learner.updates = learner.version = updates
    tensors, facts = learner.state()
    rng = np.random.default_rng(5)
    for name, values in tensors.items():
        if name.startswith("averaged.") and values.ndim > 1:
            drawn = rng.normal(0.0, values.shape[-1] ** -0.5, values.shape)
            tensors[name] = drawn.astype(np.float32)
    facts |= {"spec": spec.to_json(), "epoch": 1, "made_by": MADE_BY, "resumes": 0}
    directory = RunDirectory(folder)
    checkpoint.save(directory.checkpoints, updates, tensors, facts, keep=3)
    directory.write_config(folder.name, None, config)
    return spec
