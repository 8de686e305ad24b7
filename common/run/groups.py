"""A run's settings, group by group: declared once, for option, help, TOML key and docs.

The defaults are the paper's Atari column (Espeholt et al. 2018, Table G.1) where it has a figure.
"""

from dataclasses import dataclass
from typing import Literal

from impala_redis.common.run.kinds import NETWORKS, TEXTS, networks_help, texts_help
from impala_redis.common.settings.declaring import MAX_ENVS, MAX_FRAME_STACK, MAX_PROCESSES, setting
from impala_redis.common.settings.env_id import module_of
from impala_redis.common.settings.json_object import EMPTY, FORM, canonical
from impala_redis.common.settings.variant import Variant
from impala_redis.common.tasks import listing
from impala_redis.common.tasks.task import Task
from impala_redis.common.tasks.worlds import World, worlds_of


@dataclass(frozen=True)
class EnvironmentSettings:
    """The environment, and how many of it there are."""

    env: str = setting(
        "CartPole-v1",
        "Gymnasium id, or module:Id or path/to/module.py:Id to import the module first; several "
        "with commas are the tasks of one network",
        longest=listing.MAX_LIST,
    )
    tasks: tuple[Task, ...] = setting(
        (),
        "TOML file with [[tasks]] tables: several environments that one network learns together, "
        "with their shares and scores",
        parse=listing.tasks_in,
        form=listing.FORM,
        in_file=True,
    )
    env_kwargs: str = setting(
        EMPTY,
        "arguments of the environment's constructor: a JSON object, or key=value,key=value",
        parse=canonical,
        form=FORM,
    )
    wrapper: tuple[str, ...] = setting(
        (),
        "module:callable that wraps each environment; may be given several times, the innermost "
        "first",
        repeatable=True,
    )
    max_episode_steps: int | None = setting(
        None, "steps after which an episode is cut; none: as registered", at_least=1
    )
    mask_from: Literal["observation", "info"] = setting(
        "observation",
        "where action masks come from: the part action_mask of a Dict observation, if there is "
        'one, or info["action_mask"]',
    )
    env_processes: int = setting(
        0,
        "processes in which an actor steps its environments, for slow ones; 0: its own",
        at_least=0,
        at_most=MAX_PROCESSES,
    )
    envs_per_actor: int = setting(
        32, "environments that one actor steps as one vector", at_least=1, at_most=MAX_ENVS
    )
    num_actors: int = setting(
        1, "actors that impala-train starts; others may join by hand", at_least=0, at_most=1024
    )
    unroll_length: int = setting(20, "steps in one trajectory (T)", at_least=1, at_most=10_000)
    frame_stack: int = setting(
        1,
        "last observations that the network sees at once; each travels once",
        at_least=1,
        at_most=MAX_FRAME_STACK,
    )
    info_keys: tuple[str, ...] = setting(
        (),
        "numbers of an episode's last info that become figures, comma-separated; a.b is b in a "
        "dict a",
    )

    @property
    def variant(self) -> Variant:
        """How the environment is made, beside its id."""
        return Variant(self.env_kwargs, self.wrapper, self.max_episode_steps, self.mask_from)

    @property
    def worlds(self) -> tuple[World, ...]:
        """The environment of each task, and how it is made; one alone where there are no tasks."""
        return worlds_of(self.env, self.variant, self.tasks)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules, or their files, that make the environment and its wrappers."""
        environments = (self.env, *(task.env for task in self.tasks))
        found = dict.fromkeys(map(module_of, (*environments, *self.wrapper)))
        return tuple(module for module in found if module)


@dataclass(frozen=True)
class ModelSettings:
    """The network."""

    network: str = setting("mlp", networks_help(), choices=NETWORKS, or_named=True)
    network_config: str = setting(
        EMPTY,
        "arguments of a network of your own: a JSON object, or key=value,key=value",
        parse=canonical,
        form=FORM,
    )
    hidden_sizes: tuple[int, ...] = setting(
        (64, 64), "widths of the hidden layers, comma-separated", at_least=1, at_most=65_536
    )
    activation: Literal["tanh", "relu"] = setting("tanh", "after each hidden layer")
    lstm_size: int = setting(
        0, "width of an LSTM core after the hidden layers; 0 for none", at_least=0, at_most=65_536
    )
    text: str = setting("onehot", texts_help(), choices=TEXTS)
    extra_inputs: Literal["none", "last_action_reward"] = setting(
        "none", "what else the core, or without one the heads, are told; rewards clipped to [-1, 1]"
    )
    initial_std: float = setting(
        1.0,
        "standard deviation of drawn actions at the start, for numbers as actions; 1 is half of "
        "the way between their bounds",
        at_least=0.01,
        at_most=7,
    )
    normalize_observations: bool = setting(
        False,
        "bring numbers of observations to a mean of 0 and a deviation of 1, by running figures "
        "that the learner keeps, and clip them to [-10, 10]; pictures of bytes and categories stay",
    )


@dataclass(frozen=True)
class TrainingSettings:
    """How long the training is, the size of its batches, and its seed."""

    total_frames: int = setting(
        10_000_000, "stop after this many environment steps trained on", at_least=1
    )
    stop_at_return: float | None = setting(
        None, "stop, solved, when the mean return of 100 episodes reaches this"
    )
    stop_at_score: float | None = setting(
        None,
        "stop, solved, when the mean of the tasks' scores reaches this; a score is at most 1",
        at_most=1.0,
    )
    batch_size: int = setting(32, "trajectories in one update (B)", at_least=1, at_most=65_536)
    seed: int = setting(
        0, "seed of weights, environments and actions", at_least=0, at_most=2**63 - 1
    )
    precision: Literal["float32", "tf32", "bfloat16"] = setting(
        "float32",
        "of the network's products on the learner; on a GPU take tf32 (factors of 10 bits; a CPU "
        "computes float32 then) or bfloat16 (7 bits, the fastest for convolutions); sums, weights "
        "and what travels stay float32",
    )
    checkpoint_interval_s: float = setting(10.0, "seconds between checkpoints", above=0)
    keep_checkpoints: int = setting(3, "newest checkpoints that are kept", at_least=1)
    log_interval_s: float = setting(
        1.0, "seconds between two records in metrics.jsonl", above=0, at_most=60
    )
    replay_share: float = setting(
        0.0,
        "share of a batch drawn from the learner's memory of past trajectories",
        at_least=0,
        below=1,
    )
    replay_capacity: int = setting(
        10_000,
        "trajectories in that memory; the first in is the first out",
        at_least=1,
        at_most=10**9,
    )


@dataclass(frozen=True)
class LossSettings:
    """V-trace and the loss (paper, section 4)."""

    correction: Literal["vtrace", "one_step", "epsilon", "none"] = setting(
        "vtrace", "of the policy lag: one of the paper's four variants (section 5.2.2)"
    )
    returns: Literal["bootstrapped", "monte_carlo"] = setting(
        "bootstrapped", "monte_carlo: only whole returns are learned from, as REINFORCE does"
    )
    discounting: float = setting(0.99, "discount factor, gamma", at_least=0, at_most=1)
    lambda_: float = setting(1.0, "lambda on the traces (Remark 2)", at_least=0, at_most=1)
    clip_rho: float | None = setting(1.0, "rho-bar: clip of the importance weights", above=0)
    clip_pg_rho: float | None = setting(1.0, "rho-bar in the policy gradient", above=0)
    clip_c: float | None = setting(1.0, "c-bar: clip of the trace-cutting weights", above=0)
    baseline_cost: float = setting(
        0.5, "weight of the baseline loss; with monte_carlo, 0 subtracts no baseline", at_least=0
    )
    entropy_cost: float = setting(0.01, "weight of the entropy bonus", at_least=0, mutable=True)
    entropy_schedule: Literal["constant", "linear"] = setting(
        "constant", "linear falls to 0 at total_frames"
    )
    reduction: Literal["sum", "mean"] = setting(
        "sum", "over time and batch; the paper sums, mean makes the rate independent of batch size"
    )
    reward_clipping: Literal["none", "abs_one", "soft_asymmetric"] = setting(
        "abs_one", "abs_one: to [-1, 1]; soft_asymmetric: 0.3 min(tanh r, 0) + 5 max(tanh r, 0)"
    )
    reward_scale: float = setting(1.0, "rewards are multiplied by this before they are clipped")
    normalize_rewards: bool = setting(
        False,
        "divide rewards by the running deviation of the discounted return, and clip them to "
        "[-10, 10]",
    )
    normalize_advantages: bool = setting(
        False, "bring the advantages of a batch to a mean of 0 and a deviation of 1"
    )
    popart: bool = setting(
        False, "learn each task's values in units of their deviation; needs reward_clipping none"
    )
    popart_beta: float = setting(
        3e-4, "how far PopArt's mean and deviation move at least in an update", above=0, at_most=1
    )
    popart_least: float = setting(
        0.01,
        "PopArt's least deviation, as a share of what lies between a task's random and reference "
        "return (1 without tasks), times reward_scale",
        above=0,
        at_most=1,
    )


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer's step."""

    optimizer: Literal["rmsprop", "adam"] = setting("rmsprop", "RMSProp as in the paper, or Adam")
    learning_rate: float = setting(6e-4, "at the start", at_least=0, mutable=True)
    learning_rate_schedule: Literal["constant", "linear"] = setting(
        "linear", "linear falls to 0 at total_frames"
    )
    grad_norm_clipping: float | None = setting(40.0, "bound of the global gradient norm", above=0)
    rmsprop_decay: float = setting(0.99, "of the squared-gradient average", at_least=0, at_most=1)
    rmsprop_epsilon: float = setting(
        0.01, "inside the square root, as in the paper", above=0, mutable=True
    )
    rmsprop_momentum: float = setting(0.0, "of the update", at_least=0, at_most=1)
    adam_beta1: float = setting(0.9, "decay of the gradient average", at_least=0, below=1)
    adam_beta2: float = setting(0.999, "decay of the squared average", at_least=0, below=1)
    adam_epsilon: float = setting(1e-8, "outside the square root", above=0)


@dataclass(frozen=True)
class TransportSettings:
    """What lies between actors and learner."""

    queue_blocks: int = setting(
        4,
        "bound of the trajectory list; the oldest is dropped beyond it",
        at_least=1,
        at_most=1_000_000_000,
    )
    queue_policy: Literal["drop-oldest", "block"] = setting(
        "drop-oldest",
        "at a full list; block: actors wait for room, and their environments stand still",
    )
    publish_interval_s: float = setting(
        0.0,
        "least seconds between two published weights; cut short when half of max_policy_lag is "
        "used up",
        at_least=0,
    )
    weights_dtype: Literal["float32", "bfloat16"] = setting(
        "float32", "as published; bfloat16 halves the bytes, and actors act with rounded weights"
    )
    compression: Literal["none", "zstd"] = setting(
        "none", "of blocks on the wire; zstd pays for pictures, and needs its package on both sides"
    )
    max_policy_lag: int | None = setting(
        None,
        "blocks that are more updates old than this when the learner opens them are rejected, and "
        "counted; they may be older once they are trained on",
        at_least=0,
    )
    max_policy_age_s: float = setting(
        600.0,
        "an actor pauses when nothing was read from Redis for this long",
        at_least=1,
        at_most=1e9,
    )
    lease_s: float = setting(10.0, "the learner's hold on the run lapses after this", at_least=1)
    force_lag: int = setting(
        0,
        "actors get weights that are this many updates old: to study policy lag",
        at_least=0,
        at_most=100_000,
    )
