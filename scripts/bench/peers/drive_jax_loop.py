"""A loop compiled as a whole by JAX, as somebody who knows JAX would write it: one process.

It is no library: `compiled_loop.py` has all of it, with CartPole written anew (`cartpole.py`) and
two hidden layers of 64 for policy and value. It takes no environment that is not JAX code. Steady
rate: 1,024 environments and 20 steps, one pass over the rows. Solving: 32 environments and 32
steps, 4 passes in 2 minibatches. Compiling takes most of that time; where the variable
JAX_COMPILATION_CACHE_DIR names a folder, what was compiled before is read from it.
"""

import jax
import numpy as np

from compiled_loop import Settings, begun, make_update
from meter import Meter, read_options, tell

SETTINGS = {
    "fps": Settings(1024, 20, 1, 1, learning_rate=0.001, discount=0.99, decay=0.95),
    "solve": Settings(32, 32, 4, 2, learning_rate=0.003, discount=0.98, decay=0.8),
}


def main() -> None:
    options = read_options()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    settings, meter = SETTINGS[options.what], Meter(options)
    update, training = (
        make_update(settings),
        jax.jit(begun, static_argnums=0)(settings, options.seed),
    )
    frames, enough = 0, False
    while not enough:
        training, returns = update(training)
        finished = np.asarray(returns)
        frames += finished.size
        if options.what == "solve":
            for episode_return in finished[finished > 0]:
                meter.episode(episode_return)
        enough = meter.update(frames)
    name = "PPO" if settings.passes > 1 else "A2C"
    words = f"{name}, 1 process, {settings.envs:,} x {settings.steps}, environments in JAX, too"
    tell(words, meter.figures(), "jax", "jaxlib", "numpy")


if __name__ == "__main__":
    main()
