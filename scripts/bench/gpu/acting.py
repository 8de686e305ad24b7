"""Part d of the kit: the deep network acting on hundreds of games, alone and beside a learner.

Alone, the policy acts on pictures from memory. ALE makes games one after the other, some 0.1 s
each, so only the training has games, and begins late.
"""

import time
from pathlib import Path

import numpy as np

from bench import steady
from bench.gpu import plan, programs
from bench.gpu.networks import run_of
from bench.gpu.plan import Plan, Row
from bench.gpu.random_rows import fill
from impala_redis.common.acting.policies import make_policy
from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.local import children
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.networks.network import make_network

NETWORK = ("--preset", "atari", "--network", "deep")
# Games, and the seconds of the measurement alone and of the training after its first update.
ENVS, ALONE_S, TRAINED_S = 512, 3.0, 10.0
SHORT_ENVS, SHORT_ALONE_S, SHORT_TRAINED_S = 4, 0.1, 1.0
WARM_UP_S, SHORT_WARM_UP_S = 3.0, 0.0
BATCH_SIZE, SHORT_BATCH_SIZE = 128, 2
WARM_UP_STEPS = 3


def acting(given: Plan) -> None:
    """Measures both."""
    envs = ENVS if given.on_gpu else SHORT_ENVS
    about = {"network": "deep", "device": given.device, "envs": envs}
    given.add({"what": "alone"} | about | alone(given, envs))
    options = ["--device", given.device, "--envs", str(envs)]
    options += ["--env-threads", str(max(1, given.cores - 2))]
    given.add({"what": "beside a learner"} | about | beside_a_learner(given, options))


def alone(given: Plan, envs: int) -> Row:
    """How fast the policy acts on random pictures for so many games, draws included."""
    spec, config = run_of("deep", {"envs_per_actor": envs, "unroll_length": 2})
    rows = empty_trajectory(spec, envs)
    fill(rows, spec, seed=0)
    policy = make_policy(spec, np.random.default_rng(0), given.device)
    network = make_network(spec, config.training.seed)
    policy.load(1, {name: p.detach().numpy() for name, p in network.named_parameters()})
    policy.begin(envs)
    for _ in range(WARM_UP_STEPS):
        policy.sample(rows.observations[-1], rows.is_first[-1])
    began, steps, seconds = time.perf_counter(), 0, ALONE_S if given.on_gpu else SHORT_ALONE_S
    while (elapsed_s := time.perf_counter() - began) < seconds:
        seen = rows.observations[-1 - steps % 2]
        actions, _ = policy.sample(seen, rows.is_first[-1])
        policy.remember(actions, rows.rewards[0])
        steps += 1
    return {"steps": steps, "policy_frames_per_s": envs * steps / elapsed_s}


def beside_a_learner(given: Plan, options: list[str]) -> Row:
    """The figures of a training with one such actor, and how long it took to begin."""
    folder = Path(given.folder)
    seconds = TRAINED_S if given.on_gpu else SHORT_TRAINED_S
    warm_up_s = WARM_UP_S if given.on_gpu else SHORT_WARM_UP_S
    batch_size = BATCH_SIZE if given.on_gpu else SHORT_BATCH_SIZE
    learning = [*NETWORK, "--device", given.device, "--batch-size", str(batch_size)]
    # The actor cuts its unrolls into blocks of this width: one is an update.
    learning += ["--envs-per-actor", str(batch_size)]
    learning += ["--run-dir", str(folder / "run"), "--log-interval-s", "0.25", *steady.ENDLESS]
    learning += [] if given.on_gpu else ["--unroll-length", "4"]
    with EmbeddedServer(folder) as server:
        joining = ["--redis-url", server.url, "--run", "kit"]
        began = time.monotonic()
        learner = programs.start("learner", [*joining, *learning], folder)
        actor = programs.start("actor", [*joining, *options], folder)
        try:
            both = {"learner": learner, "actor": actor}
            ends_at = given.ends_at - programs.END_S
            programs.follow(both, folder, ends_at, warm_up_s + seconds)
            started_s = time.monotonic() - began - warm_up_s - seconds
        finally:
            children.end(actor, programs.END_S / 2)
            steady.end(learner)
    return {"started_s": started_s} | programs.figures(programs.run_in(folder), warm_up_s)


if __name__ == "__main__":
    plan.run(acting)
