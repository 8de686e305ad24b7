"""Playing and learning as one compiled function in JAX, as PureJaxRL does it (Lu et al. 2022).

The environments are JAX code too, so nothing leaves the compiled function from one update to the
next. It is PPO (Schulman et al. 2017); with one pass over all rows at once it is A2C, to which
PPO's loss then comes down (Huang et al. 2022).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

import cartpole

WIDTH, ACTIONS = 64, 2
CLIP, VALUE_COST, MOST_NORM = 0.2, 0.5, 0.5
ADAM_MEAN, ADAM_SQUARE, ADAM_EPSILON = 0.9, 0.999, 1e-8

Parameters = dict[str, Array]


class Settings(NamedTuple):
    """What is compiled into the update."""

    envs: int  # N
    steps: int  # T, of each environment for an update
    passes: int  # over the rows of an update
    minibatches: int  # steps of the optimizer in a pass
    learning_rate: float
    discount: float
    decay: float  # lambda of the advantages


class Training(NamedTuple):
    """Everything that an update changes."""

    parameters: Parameters
    means: Parameters  # Adam's, of gradients and of their squares
    squares: Parameters
    optimizer_steps: Array
    states: Array  # [4, N] of the environments
    ages: Array  # [N] steps of the episodes so far
    key: Array  # of the random numbers


class Rows(NamedTuple):
    """What was played for an update, [T, N, ...]."""

    observations: Array  # [T, N, 4]
    actions: Array
    log_probs: Array
    values: Array
    after: Array  # [T, N, 4] the observation that the action led to, before any new episode
    terminated: Array
    truncated: Array
    returns: Array  # of the episode that ends here; 0 where none does


def begun(settings: Settings, seed: int) -> Training:
    """A new network, with orthogonal weights, and new episodes."""
    key, *keys = jax.random.split(jax.random.PRNGKey(seed), 6)
    layers = {"first": (4, WIDTH, 2**0.5), "second": (WIDTH, WIDTH, 2**0.5)}
    layers |= {"policy": (WIDTH, ACTIONS, 0.01), "value": (WIDTH, 1, 1.0)}
    parameters = {}
    for (name, (inputs, outputs, gain)), one in zip(layers.items(), keys, strict=False):
        parameters[name] = jax.nn.initializers.orthogonal(gain)(one, (inputs, outputs))
        parameters[f"{name}_bias"] = jnp.zeros(outputs)
    nothing = jax.tree.map(jnp.zeros_like, parameters)
    count = jnp.zeros((), jnp.int32)
    states, ages = first_states(keys[-1], settings.envs), jnp.zeros(settings.envs, jnp.int32)
    return Training(parameters, nothing, nothing, count, states, ages, key)


def first_states(key: Array, envs: int) -> Array:
    """The first states [4, N] of episodes."""
    return jax.random.uniform(key, (4, envs), minval=-cartpole.FIRST, maxval=cartpole.FIRST)


def network(parameters: Parameters, observations: Array) -> tuple[Array, Array]:
    """Log probabilities [..., 2] and values [...] for observations [..., 4]."""
    x = jnp.tanh(observations @ parameters["first"] + parameters["first_bias"])
    x = jnp.tanh(x @ parameters["second"] + parameters["second_bias"])
    logits = x @ parameters["policy"] + parameters["policy_bias"]
    values = x @ parameters["value"] + parameters["value_bias"]
    return jax.nn.log_softmax(logits), values[..., 0]


def of_taken(log_policy: Array, actions: Array) -> Array:
    """The log probabilities [...] of the actions [...]."""
    return jnp.take_along_axis(log_policy, actions[..., None], -1)[..., 0]


def step(training: Training, _: None) -> tuple[Training, Rows]:
    """One step of every environment; an episode that ends is followed by a new one."""
    states = training.states
    key, for_actions, for_states = jax.random.split(training.key, 3)
    log_policy, values = network(training.parameters, states.T)
    actions = jax.random.categorical(for_actions, log_policy)
    after, ages = cartpole.moved(jnp, states, actions), training.ages + 1
    terminated = cartpole.fallen(jnp, after)
    truncated = ~terminated & (ages >= cartpole.MOST_STEPS)
    over = terminated | truncated
    log_probs, returns = of_taken(log_policy, actions), jnp.where(over, ages, 0)
    rows = Rows(
        states.T, actions, log_probs, values, after.T, terminated, truncated, returns
    )  # of [N]
    states = jnp.where(over, first_states(for_states, len(ages)), after)
    return training._replace(states=states, ages=jnp.where(over, 0, ages), key=key), rows


def advantages_of(settings: Settings, training: Training, rows: Rows) -> Array:
    """Generalised advantages [T, N] (Schulman et al. 2016).

    A fallen pole earns nothing more. An episode that was only cut off would have gone on, so the
    value of the observation that it had reached stands for the rest of it.
    """
    parameters = training.parameters
    _, last = network(parameters, training.states.T)  # [N]
    cut_off = lax.cond(
        rows.truncated.any(),
        lambda: network(parameters, rows.after)[1],
        lambda: jnp.zeros_like(rows.values),
    )
    following = jnp.concatenate([rows.values[1:], last[None]])  # [T, N]
    following = jnp.where(rows.truncated, cut_off, jnp.where(rows.terminated, 0.0, following))
    deltas = 1.0 + settings.discount * following - rows.values
    goes_on = ~(rows.terminated | rows.truncated)

    def back(above: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, goes_on = row
        above = delta + settings.discount * settings.decay * goes_on * above
        return above, above

    _, advantages = lax.scan(back, jnp.zeros_like(last), (deltas, goes_on), reverse=True)
    return advantages


def loss(parameters: Parameters, rows: Rows, advantages: Array, targets: Array) -> Array:
    """PPO's loss of rows [R, ...]."""
    log_policy, values = network(parameters, rows.observations)
    ratios = jnp.exp(of_taken(log_policy, rows.actions) - rows.log_probs)
    scaled = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    clipped = jnp.clip(ratios, 1.0 - CLIP, 1.0 + CLIP) * scaled
    gain = jnp.minimum(ratios * scaled, clipped).mean()
    return VALUE_COST * ((values - targets) ** 2).mean() - gain


def adam(settings: Settings, training: Training, gradients: Parameters) -> Training:
    """A step of Adam, with the gradient's norm bounded."""
    norm = jnp.sqrt(sum((gradient**2).sum() for gradient in jax.tree.leaves(gradients)))
    share = jnp.minimum(1.0, MOST_NORM / (norm + 1e-6))
    count = training.optimizer_steps + 1

    def mixed(share_kept: float, old: Array, new: Array) -> Array:
        return share_kept * old + (1.0 - share_kept) * new

    def moved(parameter: Array, mean: Array, square: Array) -> Array:
        mean, square = mean / (1 - ADAM_MEAN**count), square / (1 - ADAM_SQUARE**count)
        return parameter - settings.learning_rate * mean / (jnp.sqrt(square) + ADAM_EPSILON)

    gradients = jax.tree.map(lambda gradient: gradient * share, gradients)
    means = jax.tree.map(lambda old, new: mixed(ADAM_MEAN, old, new), training.means, gradients)
    squares = jax.tree.map(
        lambda old, new: mixed(ADAM_SQUARE, old, new**2), training.squares, gradients
    )
    parameters = jax.tree.map(moved, training.parameters, means, squares)
    return training._replace(
        parameters=parameters, means=means, squares=squares, optimizer_steps=count
    )


def make_update(settings: Settings) -> Callable[[Training], tuple[Training, Array]]:
    """The compiled update; it also gives the returns [T, N] of finished episodes, 0 elsewhere."""
    num_rows = settings.envs * settings.steps

    def learn(training: Training, batch: Any) -> tuple[Training, None]:
        return adam(settings, training, jax.grad(loss)(training.parameters, *batch)), None

    def update(training: Training) -> tuple[Training, Array]:
        training, rows = lax.scan(step, training, None, settings.steps)
        advantages = advantages_of(settings, training, rows)
        batch = (rows, advantages, advantages + rows.values)
        flat = jax.tree.map(lambda x: x.reshape(num_rows, *x.shape[2:]), batch)

        def go_over(training: Training, key: Array) -> tuple[Training, None]:
            if settings.minibatches == 1:
                return learn(training, flat)
            order = jax.random.permutation(key, num_rows).reshape(settings.minibatches, -1)
            return lax.scan(
                lambda training, some: learn(training, jax.tree.map(lambda x: x[some], flat)),
                training,
                order,
            )

        key, *keys = jax.random.split(training.key, settings.passes + 1)
        training, _ = lax.scan(go_over, training._replace(key=key), jnp.stack(keys))
        return training, rows.returns

    return jax.jit(update, donate_argnums=0)
