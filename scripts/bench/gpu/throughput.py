"""Part c of the kit: frames per second of CartPole's large batches, without the GPU and with it."""

import time
from pathlib import Path

from bench.gpu import plan, programs
from bench.gpu.plan import Plan
from bench.steady import ENDLESS

# Actors beyond these only wait for the learner.
MOST_ACTORS = 8
WARM_UP_S, SECONDS = 2.0, 10.0
# The same without a GPU.
SHORT_WARM_UP_S, SHORT_SECONDS = 0.3, 1.0


def throughput(given: Plan) -> None:
    """Trains twice: with the engine that the preset chooses, and with the device."""
    actors = max(1, min(MOST_ACTORS, given.cores - 2))
    warm_up_s = WARM_UP_S if given.on_gpu else SHORT_WARM_UP_S
    seconds = SECONDS if given.on_gpu else SHORT_SECONDS
    for number, (device, engine) in enumerate((("cpu", "auto"), (given.device, "torch"))):
        options = ["--preset", "cartpole-throughput", "--num-actors", str(actors), *ENDLESS]
        options += ["--log-interval-s", "0.2", "--device", device, "--engine", engine]
        share_s = (given.left_s - programs.END_S) / (2 - number)
        run = programs.train(
            options,
            Path(given.folder) / str(number),
            time.monotonic() + share_s,
            warm_up_s + seconds,
        )
        row = {"device": device, "engine": engine, "num_actors": actors}
        given.add(row | programs.figures(run, warm_up_s))


if __name__ == "__main__":
    plan.run(throughput)
