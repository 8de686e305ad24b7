"""Measures `Actor.unroll` without Redis: the whole, its parts, and the policy in numpy and torch.

    .venv/bin/python scripts/bench_acting.py [--envs-per-actor 32,256,1024]

The limit is what an unroll cannot do without: the vector environment stepped alone with actions
that were drawn before, and the policy asked alone about observations that were seen before. The
share of it that is reached is their time over the unroll's; the rest is rows copied and episodes
followed. Packing to bytes is beside it: the sender's thread does that. Each step of an environment
counts as a frame, the fake one after an episode included. The last line is JSON.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from threadpoolctl import threadpool_limits

import measuring
from common import wire
from common.acting import Actor
from common.envs import VectorEnvironment
from common.policy import Policy
from common.spec import RunSpec
from common.wire import Weights
from load import weights_of
from measuring import Figures, Spreads
from workers import runtime

# An unroll is these two, and the rest.
PARTS = ("environment_s", "policy_s")
POLICIES = ("policy_s", "torch_s", "traced_s")
Call = Callable[[], object]
Observations = NDArray[np.generic]


def environment_alone(spec: RunSpec, num_envs: int) -> Call:
    """An unroll's steps with random actions."""
    environment = VectorEnvironment(spec.env, num_envs)
    environment.reset(0)
    drawn = np.random.default_rng(0).integers(
        spec.action.sizes[0], size=(spec.unroll_length, num_envs)
    )

    def step() -> None:
        for actions in drawn:
            environment.step(actions)

    return step


def policy_alone(spec: RunSpec, weights: Weights, seen: Observations) -> Call:
    """An unroll's actions."""
    policy = Policy(spec, np.random.default_rng(0))
    policy.load(1, weights)
    return lambda: [policy.sample(observations) for observations in seen]


def policies_in_torch(spec: RunSpec, weights: Weights, seen: Observations) -> dict[str, Call]:
    """The same by PyTorch: as it is written, and traced."""
    import torch

    from bare import BareNetwork, features_of

    torch.set_num_threads(1)
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
        warnings.simplefilter("ignore", DeprecationWarning)  # of tracing: it is told what to use
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
    """What is measured for a number of environments, each as one unroll's work."""

    def __init__(self, spec: RunSpec, num_envs: int, with_torch: bool) -> None:
        self._rows = num_envs * spec.unroll_length
        weights = weights_of(spec)
        actor = Actor(spec, VectorEnvironment(spec.env, num_envs), "bench", 0)
        actor.policy.load(1, weights)
        block = actor.unroll()
        seen = block.trajectory.observations[:-1].copy()
        self._calls: dict[str, Call] = {
            "unroll_s": actor.unroll,
            "environment_s": environment_alone(spec, num_envs),
            "policy_s": policy_alone(spec, weights, seen),
            "pack_s": lambda: wire.pack_block(block, spec),
        }
        if with_torch:
            self._calls |= policies_in_torch(spec, weights, seen)

    def measured(self, seconds: float) -> Figures:
        """How long each takes for an unroll."""
        measuring.side_by_side(self._calls, measuring.WARM_UP_SHARE * seconds)
        times = measuring.side_by_side(self._calls, seconds)
        limit_s = sum(times[part] for part in PARTS)
        return {
            "frames_per_s": self._rows / times["unroll_s"],
            "limit_frames_per_s": self._rows / limit_s,
            "share": limit_s / times["unroll_s"],
            "rest_s": times["unroll_s"] - limit_s,
            **times,
        }


def tables(figures: dict[str, Spreads], unroll_length: int, with_torch: bool) -> list[Table]:
    """For people: how fast, where an unroll's time goes, and the policies."""
    names = ("unroll_s", *PARTS, "rest_s", "pack_s")
    speed = measuring.table("Actor.unroll, without Redis", "frames/s", "limit", "share of it")
    times = measuring.table("an unroll, ms", *(name.removesuffix("_s") for name in names))
    policies = measuring.table("a call of the policy, us", "numpy", "torch", "torch, traced")
    for case, of in figures.items():
        reached, limit = of["frames_per_s"].shown(), of["limit_frames_per_s"].shown()
        speed.add_row(case, reached, limit, of["share"].shown(".2f"))
        times.add_row(case, *(f"{1e3 * of[name].median:.3f}" for name in names))
        if with_torch:
            calls = (of[name].shown(".0f", 1e6 / unroll_length) for name in POLICIES)
            policies.add_row(case, *calls)
    return [speed, times, policies] if with_torch else [speed, times]


@click.command(help=__doc__, context_settings=runtime.CONTEXT)
@measuring.task_options
@click.option(
    "--envs-per-actor",
    "numbers",
    default="32,256,1024",
    callback=measuring.whole_numbers,
    help="Environments that the actor steps as one vector; several with commas.",
)
@click.option("--torch/--no-torch", "with_torch", default=True, help="Policies in torch, too.")
@measuring.timing_options(1.0, "How long each part is measured.")
def main(
    preset_name: str,
    config_file: Path | None,
    unroll_length: int | None,
    numbers: list[int],
    with_torch: bool,
    seconds: float,
    repeat: int,
    only_json: bool,
) -> None:
    measuring.begin()
    others_cores = measuring.others_cores()
    # As the actor's program does.
    with measuring.one_sentence(), threadpool_limits(limits=1):
        config = measuring.config_of(preset_name, config_file, unroll_length)
        spec = measuring.spec_of(config)
        actings = {number: Acting(spec, number, with_torch) for number in numbers}
        runs: dict[int, list[Figures]] = {number: [] for number in numbers}
        for repetition in range(repeat):
            for number in measuring.taking_turns(numbers, repetition):
                runs[number].append(actings[number].measured(seconds))
    figures = {f"{number} environments": measuring.spreads(of) for number, of in runs.items()}
    about = measuring.about(spec, seconds, repeat, others_cores())
    shown = tables(figures, spec.unroll_length, with_torch)
    measuring.show(shown, measuring.as_document(about, figures), only_json)


if __name__ == "__main__":
    main()
