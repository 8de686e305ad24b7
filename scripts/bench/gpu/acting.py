"""Part d of the kit: the deep network acting on hundreds of games, alone and beside a learner."""

import json
import subprocess
import sys
from pathlib import Path

from bench import steady
from bench.gpu import plan, programs
from bench.gpu.plan import ROOT, Plan, Row
from impala_redis.common.local import children
from impala_redis.common.local.embedded import EmbeddedServer

NETWORK = ("--preset", "atari", "--network", "deep")
# Games, and the seconds of each measurement alone and of the training after its first update.
ENVS, ALONE_S, TRAINED_S = 512, 3.0, 10.0
SHORT_ENVS, SHORT_ALONE_S, SHORT_TRAINED_S = 4, 0.1, 1.0
WARM_UP_S, SHORT_WARM_UP_S = 3.0, 0.0
BATCH_SIZE, SHORT_BATCH_SIZE = 128, 2


def acting(given: Plan) -> None:
    """Measures both; the first may take half of the time."""
    envs = ENVS if given.on_gpu else SHORT_ENVS
    options = ["--device", given.device, "--envs", str(envs)]
    options += ["--env-threads", str(max(1, given.cores - 2))]
    about = {"network": "deep", "device": given.device, "envs": envs}
    failure = ""
    try:
        given.add({"what": "alone"} | about | alone(given, options))
    except (steady.TrainingFailed, subprocess.TimeoutExpired) as error:
        failure = str(error)  # the training tells something by itself
    given.add({"what": "beside a learner"} | about | beside_a_learner(given, options))
    if failure:
        raise steady.TrainingFailed(failure)


def alone(given: Plan, options: list[str]) -> Row:
    """What scripts/bench_acting.py says of the policy and of whole unrolls."""
    seconds = ALONE_S if given.on_gpu else SHORT_ALONE_S
    command = [sys.executable, str(ROOT / "scripts" / "bench_acting.py"), *NETWORK, *options]
    command += ["--seconds", str(seconds), "--repeat", "1", "--json"]
    command += [] if given.on_gpu else ["--unroll-length", "2"]
    log = Path(given.folder) / "bench_acting.log"
    with log.open("wb") as file:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=file, timeout=given.left_s / 2
        )
    if done.returncode:
        said = steady.last_words(log)
        raise steady.TrainingFailed(f"bench_acting.py ended with {done.returncode}: {said}")
    (figures,) = json.loads(done.stdout.decode().splitlines()[-1])["figures"].values()
    return {name: of["median"] for name, of in figures.items()}


def beside_a_learner(given: Plan, options: list[str]) -> Row:
    """The figures of a training with one such actor."""
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
        learner = programs.start("learner", [*joining, *learning], folder)
        actor = programs.start("actor", [*joining, *options], folder)
        try:
            both = {"learner": learner, "actor": actor}
            ends_at = given.ends_at - programs.END_S
            programs.follow(both, folder, ends_at, warm_up_s + seconds)
        finally:
            children.end(actor, programs.END_S / 2)
            steady.end(learner)
    return programs.figures(programs.run_in(folder), warm_up_s)


if __name__ == "__main__":
    plan.run(acting)
