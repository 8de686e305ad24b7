"""Part b of the kit: Pong to a mean return of 18 by impala-train, from the command to the goal.

ALE has the cores: every two of them have an actor with threads of its own, whose policy the GPU
computes beside the learner's updates.
"""

import os
from pathlib import Path

from bench.gpu import plan, programs
from bench.gpu.plan import Plan

# What the run's speed is taken without: its start, and what is slower in the first seconds.
WARM_UP_S, SHORT_WARM_UP_S = 10.0, 0.5
# Without a GPU it ends so long after its first update.
SHORT_SECONDS = 2.0
# A step waits for a GPU once, however many games it is for. Blocks come in crowds, and the newest
# weights are worth more here than what it costs to publish them. The rate has fallen to 0 when the
# part's time is over.
WIDE = (
    *("--envs-per-actor", "32", "--env-threads", "3", "--queue-blocks", "16"),
    *("--publish-interval-s", "0.05", "--total-frames", "5200000", "--log-interval-s", "1"),
)
SHORT = ("--envs-per-actor", "4", "--batch-size", "4", "--log-interval-s", "0.5")


def pong(given: Plan) -> None:
    """Trains, and adds what it has come to."""
    actors = max(1, (given.cores - 2) // 2)
    options = ["--preset", "atari-fast", "--seed", "0", "--device", given.device]
    options += ["--num-actors", str(actors), *(WIDE if given.on_gpu else SHORT)]
    os.environ["IMPALA_ACTOR_DEVICE"] = given.device  # for the actors that impala-train starts
    seconds = None if given.on_gpu else SHORT_SECONDS
    run = programs.train(options, Path(given.folder), given.ends_at - programs.END_S, seconds)
    given.add(
        {
            "device": given.device,
            "actors_on": given.device,
            "num_actors": actors,
            "options": " ".join(options),
            "status": run.result.get("status"),
            "wall_s": run.result.get("wall_s"),
            "frames": run.records.last("frames"),
            # Unknown, and so left out, until enough episodes have ended.
            "mean_return_100": programs.number(run.records.last("mean_return_100")),
            **programs.figures(run, WARM_UP_S if given.on_gpu else SHORT_WARM_UP_S),
            "curve": programs.curve(run),
        }
    )


if __name__ == "__main__":
    plan.run(pong)
