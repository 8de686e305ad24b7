"""Measures `Actor.unroll` without Redis: the whole, its parts, and the policy in numpy and torch.

    .venv/bin/python scripts/bench_acting.py [--envs-per-actor 32,256,1024]
    .venv/bin/python scripts/bench_acting.py --preset atari-fast
    .venv/bin/python scripts/bench_acting.py --preset atari-fast --device cuda --envs 512

The limit is what an unroll cannot do without: the vector environment stepped alone with actions
that were drawn before, and the policy asked alone about observations that were seen before. The
share of it that is reached is their time over the unroll's; the rest is rows copied and episodes
followed. Packing to bytes is beside it, compressed if the settings say so: the sender's thread does
that. The bytes a step are those of the last block that was played, for a step of one environment;
games that have just begun look alike and compress better than later in a run, whose records tell.
Each step counts as a frame, the fake one after an episode included. A policy in PyTorch stands
beside the one in numpy where only hidden layers choose one action. With --device the policy is the
one that an actor on a GPU has. The last line is JSON: `frames_per_s` of the unroll, and
`policy_frames_per_s` and `environment_frames_per_s` of its parts alone.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench import measuring
from bench.measuring import Figures, Spreads
from bench.plain_torch import BareNetwork, features_of, is_plain
from impala_redis.common.acting.parcels import cut
from impala_redis.common.acting.policies import make_policy
from impala_redis.common.acting.sampling import Actions
from impala_redis.common.blocks import compression, wire
from impala_redis.common.blocks.trajectory import Block, Trajectory
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import ConfigError
from impala_redis.common.networks.network import make_network
from impala_redis.common.run.config import find_setting
from impala_redis.common.run.spaces import ActionSpec
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.settings.env_id import module_of
from impala_redis.workers.options import CONTEXT
from impala_redis.workers.outfit import Outfit

# An unroll is these two and the rest.
PARTS = ("environment_s", "policy_s")
POLICIES = ("policy_s", "torch_s", "traced_s")
CODECS = find_setting("compression").choices
Call = Callable[[], object]


def environment_alone(spec: RunSpec, num_envs: int, num_threads: int | None) -> Call:
    """An unroll's steps with random actions."""
    environment = VectorEnvironment(spec.env, num_envs, num_threads=num_threads)
    environment.reset(0)
    drawn = random_actions(spec.action, spec.unroll_length, num_envs)

    def step() -> None:
        for actions in drawn:
            environment.step(actions)

    return step


def random_actions(action: ActionSpec, steps: int, num_envs: int) -> Actions:
    """Actions [T, N, ...] of any kind; numbers of deviation 1, as a new policy draws them."""
    rng = np.random.default_rng(0)
    if action.kind == "continuous":
        return rng.standard_normal((steps, num_envs, *action.shape), np.float32)
    choices = rng.integers(action.sizes, size=(steps, num_envs, len(action.sizes)))
    return choices[..., 0] if action.kind == "discrete" else choices


def policy_alone(spec: RunSpec, weights: Weights, played: Trajectory, outfit: Outfit) -> Call:
    """An unroll's actions, with frames stacked and extra inputs remembered."""
    policy = make_policy(spec, np.random.default_rng(0), outfit.device)
    policy.load(1, weights)
    policy.begin(played.actions.shape[1])
    seen = played.observations[spec.observation.history : -1]  # [T, N, ...]
    rows = list(zip(seen, played.is_first[:-1], played.rewards, strict=True))

    def act() -> None:
        for observations, is_first, rewards in rows:
            actions, _ = policy.sample(observations, is_first)
            policy.remember(actions, rewards)

    return act


def policies_in_torch(spec: RunSpec, weights: Weights, played: Trajectory) -> dict[str, Call]:
    """An unroll's actions by a plain network in PyTorch: as it is written, and traced."""
    seen = played.observations[:-1]
    network = BareNetwork(spec)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})

    class Acting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            log_policy = torch.log_softmax(self.network(features_of(spec, observations))[0], -1)
            actions = torch.multinomial(log_policy.exp(), 1)
            return actions.squeeze(-1), log_policy.gather(-1, actions).squeeze(-1)

    eager = Acting().eval()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)  # tracing names its successor
        traced = torch.jit.trace(eager, torch.from_numpy(seen[0]), check_trace=False)

    def unroll_of(policy: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> Call:
        @torch.inference_mode()
        def act() -> None:
            for observations in seen:
                actions, log_probs = policy(torch.from_numpy(observations))
                actions.numpy(), log_probs.numpy()

        return act

    return {"torch_s": unroll_of(eager), "traced_s": unroll_of(traced)}


class Acting:
    """The calls that are measured for a number of environments; each does one unroll's work."""

    def __init__(self, spec: RunSpec, outfit: Outfit, with_torch: bool) -> None:
        num_envs = outfit.num_envs(spec)
        self._spec, self._rows = spec, num_envs * spec.unroll_length
        model = make_network(spec, seed=0)
        weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
        self._actor = outfit.make_actor(spec, "bench", 0, 0)
        self._actor.policy.load(1, weights)
        self._play()
        played = self._block.trajectory
        self._calls: dict[str, Call] = {
            "unroll_s": self._play,
            "environment_s": environment_alone(spec, num_envs, outfit.env_threads),
            "policy_s": policy_alone(spec, weights, played, outfit),
            "pack_s": self._pack,
        }
        if with_torch:
            self._calls |= policies_in_torch(spec, weights, played)

    def _play(self) -> None:
        self._block = self._actor.unroll()

    def _pack(self) -> None:
        for block in cut(self._block, self._spec.envs_per_actor):
            wire.pack_block(block, self._spec)

    def measured(self, seconds: float) -> Figures:
        """The seconds that each call takes for an unroll, and the bytes of a step."""
        measuring.side_by_side(self._calls, measuring.WARM_UP_SHARE * seconds)
        times = measuring.side_by_side(self._calls, seconds)
        limit_s = sum(times[part] for part in PARTS)
        return {
            "frames_per_s": self._rows / times["unroll_s"],
            **{f"{part[:-2]}_frames_per_s": self._rows / times[part] for part in PARTS},
            "limit_frames_per_s": self._rows / limit_s,
            "share": limit_s / times["unroll_s"],
            "rest_s": times["unroll_s"] - limit_s,
            **times,
            **bytes_a_step(self._block, self._spec),
        }


def bytes_a_step(block: Block, spec: RunSpec) -> Figures:
    """A block's bytes on the wire per step of one environment, with each codec that works here."""
    found = {}
    for codec in CODECS:
        if codec == "none" or is_installed():
            packed = dataclasses.replace(spec, compression=codec)
            messages = [wire.pack_block(part, packed) for part in cut(block, spec.envs_per_actor)]
            found[f"bytes_{codec}"] = sum(map(len, messages)) / block.trajectory.mask.size
    return found


def is_installed() -> bool:
    """Whether blocks can be compressed here."""
    with contextlib.suppress(ConfigError):
        compression.check_installed()
        return True
    return False


def tables(figures: dict[str, Spreads], unroll_length: int, with_torch: bool) -> list[Table]:
    """Tables of the speed, of where an unroll's time goes, of its bytes, and of the policies."""
    names = ("unroll_s", *PARTS, "rest_s", "pack_s")
    codecs = [
        codec for codec in find_setting("compression").choices if is_installed() or codec == "none"
    ]
    size = measuring.table("bytes a step, on the wire", *codecs)
    speed = measuring.table("Actor.unroll, without Redis", "frames/s", "limit", "share of it")
    times = measuring.table("an unroll, ms", *(name.removesuffix("_s") for name in names))
    policies = measuring.table("a call of the policy, us", "numpy", "torch", "torch, traced")
    for case, of in figures.items():
        reached, limit = of["frames_per_s"].shown(), of["limit_frames_per_s"].shown()
        speed.add_row(case, reached, limit, of["share"].shown(".2f"))
        times.add_row(case, *(f"{1e3 * of[name].median:.3f}" for name in names))
        size.add_row(case, *(of[f"bytes_{codec}"].shown() for codec in codecs))
        if with_torch:
            calls = (of[name].shown(".0f", 1e6 / unroll_length) for name in POLICIES)
            policies.add_row(case, *calls)
    return [speed, times, size, *([policies] if with_torch else [])]


@click.command(help=__doc__, context_settings=CONTEXT)
@measuring.task_options
@click.option(
    "--envs-per-actor",
    "--envs",
    "numbers",
    callback=measuring.whole_numbers,
    help="Environments that the actor steps as one vector, several with commas: 32,256,1024 if "
    "nothing else is said, with convolutions the settings' own.",
)
@click.option("--network", help="Instead of theirs.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="As an actor's.")
@click.option("--env-threads", type=click.IntRange(min=1), help="As an actor's.")
@click.option("--torch/--no-torch", "with_torch", default=True, help="Policies in torch, too.")
@measuring.timing_options(1.0, "How long each part is measured.")
def main(
    preset_name: str,
    config_file: Path | None,
    unroll_length: int | None,
    numbers: list[int],
    network: str | None,
    device: str,
    env_threads: int | None,
    with_torch: bool,
    seconds: float,
    repeat: int,
    only_json: bool,
) -> None:
    measuring.begin()
    others_cores = measuring.others_cores()
    torch.set_num_threads(1)
    # The actor's program does the same.
    with measuring.one_sentence(), threadpool_limits(limits=1):
        config = measuring.config_of(preset_name, config_file, unroll_length)
        config = config.replace({"network": network} if network else {})
        trusted = (module_of(config.environment.env),)
        outfit = Outfit(trusted, device=device, env_threads=env_threads).checked()
        if config.transport.compression != "none":
            compression.check_installed()
        spec = measuring.spec_of(config)
        with_torch = with_torch and is_plain(spec) and device == "cpu"
        numbers = measuring.sizes_of(spec, numbers, spec.envs_per_actor)
        actings = {
            number: Acting(spec, outfit._replace(envs=number), with_torch) for number in numbers
        }
        runs: dict[int, list[Figures]] = {number: [] for number in numbers}
        for repetition in range(repeat):
            for number in measuring.taking_turns(numbers, repetition):
                runs[number].append(actings[number].measured(seconds))
    figures = {f"{number} environments": measuring.spreads(of) for number, of in runs.items()}
    about = measuring.about(spec, seconds, repeat, others_cores())
    if device != "cpu" or env_threads:
        about |= {"device": device, "env_threads": outfit.env_threads}
    shown = tables(figures, spec.unroll_length, with_torch)
    measuring.show(shown, measuring.as_document(about, figures), only_json)


if __name__ == "__main__":
    main()
