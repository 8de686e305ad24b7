"""Part b of the kit: Pong to a mean return of 18 by impala-train, from the command to the goal."""

from pathlib import Path

from bench.gpu import plan, programs
from bench.gpu.plan import Plan

# What the run's speed is taken without: its start, and what is slower in the first seconds.
WARM_UP_S, SHORT_WARM_UP_S = 10.0, 0.5
# Without a GPU it ends so long after its first update.
SHORT_SECONDS = 2.0


def pong(given: Plan) -> None:
    """Trains with as many actors as there are cores besides the learner's and the server's."""
    actors = max(1, given.cores - 2)
    options = ["--preset", "atari-fast", "--num-actors", str(actors), "--seed", "0"]
    options += ["--device", given.device, "--log-interval-s", "1" if given.on_gpu else "0.5"]
    options += [] if given.on_gpu else ["--envs-per-actor", "4", "--batch-size", "4"]
    seconds = None if given.on_gpu else SHORT_SECONDS
    run = programs.train(options, Path(given.folder), given.ends_at - programs.END_S, seconds)
    given.add(
        {
            "device": given.device,
            "actors": actors,
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
