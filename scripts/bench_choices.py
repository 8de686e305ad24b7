"""Measures the figures that docs/decisions.md quotes, on this machine.

    .venv/bin/python scripts/bench_choices.py

Each figure is the median of several repeats, with the spread. The line on hiredis needs it
installed (`.venv/bin/pip install hiredis==3.5.0`); the others need nothing.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPEATS = 5


def in_fresh_process(code: str) -> list[float]:
    """The number that a fresh interpreter prints, once for each repeat."""
    runs = []
    for _ in range(REPEATS):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        runs.append(float(done.stdout))
    return runs


def show(what: str, values: list[float], unit: str) -> None:
    low, mid, high = min(values), statistics.median(values), max(values)
    print(f"{what:<58} {mid:10.3f} {unit}   ({low:.3f} to {high:.3f})")


TIMED = """
import time
start = time.perf_counter()
{body}
print(time.perf_counter() - start)
"""

FIRST_OPTIMIZER = """
import time, torch
weights = [torch.zeros(1, requires_grad=True)]
start = time.perf_counter()
torch.optim.Adam(weights)
print(time.perf_counter() - start)
"""


def start_up() -> None:
    show("import torch", in_fresh_process(TIMED.format(body="import torch")), "s")
    show("the first torch.optim.Adam", in_fresh_process(FIRST_OPTIMIZER), "s")
    show(
        "import of impala-actor",
        in_fresh_process(TIMED.format(body="import impala_redis.workers.actor")),
        "s",
    )


def acting(num_envs: int) -> None:
    """Times a batched policy call of the cartpole network, in numpy and in torch."""
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits

    from impala_redis.common.acting.policies import make_policy
    from impala_redis.common.networks.network import NetworkInput, make_network
    from impala_redis.common.presets.table import preset
    from impala_redis.common.run.spaces import ObservationSpec, discrete
    from impala_redis.common.run.spec import make_spec

    torch.set_num_threads(1)
    spec = make_spec("bench", preset("cartpole"), ObservationSpec((4,), "float32"), discrete(2))
    model = make_network(spec, seed=0)
    policy = make_policy(spec, np.random.default_rng(0))
    policy.load(1, {name: p.detach().numpy() for name, p in model.named_parameters()})
    policy.begin(num_envs)
    observations = np.random.default_rng(1).normal(size=(num_envs, 4)).astype(np.float32)
    is_first = np.zeros(num_envs, np.bool_)

    # One row: no episode ended in it, and nothing is remembered.
    seen = NetworkInput(
        torch.from_numpy(observations)[None],
        torch.from_numpy(is_first)[None],
        actions=torch.empty(0, num_envs),
        rewards=torch.empty(0, num_envs),
        memory=torch.empty(num_envs, 0),
    )

    @torch.no_grad()
    def in_torch() -> None:
        log_policy = torch.log_softmax(model(seen).policy[0], -1)
        actions = torch.multinomial(log_policy.exp(), 1)
        log_policy.gather(-1, actions).numpy()

    with threadpool_limits(limits=1):
        for name, call in (
            ("numpy", lambda: policy.sample(observations, is_first)),
            ("torch", in_torch),
        ):
            show(f"policy call, {num_envs} environments, {name}", per_call_us(call), "us")


def per_call_us(call: Callable[[], object], calls: int = 1000) -> list[float]:
    for _ in range(50):
        call()
    runs = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        runs.append((time.perf_counter() - start) / calls * 1e6)
    return runs


def speak_as(resp: str) -> None:
    """Replaces our reader and packer by redis-py's own, with or without hiredis."""
    if resp == "redis-py":
        sys.modules["hiredis"] = None  # type: ignore[assignment]
    if resp != "ours":
        import redis

        from impala_redis.common.server import reading
        from impala_redis.common.server import resp as ours

        plain: Any = redis.Connection(protocol=2)  # never connected
        reading.BoundedReplies = type(plain._parser)  # type: ignore[misc]
        ours.PACKER = plain._command_packer  # type: ignore[misc]
        ours.packed = plain.pack_commands


def moving(resp: str, num_envs: int) -> dict[str, list[float]]:
    """Times an actor's push and the learner's claim of one block, through a real server."""
    speak_as(resp)
    from impala_redis.common.blocks import wire
    from impala_redis.common.blocks.trajectory import Block, Origin, empty_trajectory
    from impala_redis.common.local.embedded import EmbeddedServer
    from impala_redis.common.presets.table import preset
    from impala_redis.common.run.spaces import ObservationSpec, discrete
    from impala_redis.common.run.spec import make_spec
    from impala_redis.common.transport.actor_link import ActorLink
    from impala_redis.common.transport.learner_link import LearnerLink
    from impala_redis.common.transport.ledger import Settled

    spec = make_spec("bench", preset("cartpole"), ObservationSpec((4,), "float32"), discrete(2))
    rows = empty_trajectory(spec, num_envs)
    for array in rows:
        array.fill(0)
    message = wire.pack_block(Block(Origin("bench", 1, 1, 1), rows, (), 0.0), spec)
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(Path(folder)) as server:
        learner = LearnerLink(server.url, "bench", "bench", 60.0)
        learner.open()
        learner.announce(spec.to_json(), spec.fingerprint, "running")
        actor = ActorLink(server.url, "bench", "bench")
        sequence = iter(range(1, 10**9))
        claimed = Settled()

        def push() -> None:
            actor.push("bench#1", next(sequence), message, 4)

        def push_and_claim() -> None:
            nonlocal claimed
            push()
            messages, _ = learner.settle_and_claim(claimed, 1)
            claimed = Settled(consumed=len(messages))

        figures = {"push": per_call_us(push), "push + claim": per_call_us(push_and_claim)}
    return figures


def transport() -> None:
    ways = ["ours", "redis-py"]
    if installed("hiredis"):
        ways.append("hiredis")
    else:
        print("hiredis is not installed: its lines are left out")
    for num_envs in (1, 64, 1024):
        for resp in ways:
            code = (
                "import json, sys; sys.path.insert(0, 'scripts'); import bench_choices as b; "
                f"print(json.dumps(b.moving({resp!r}, {num_envs})))"
            )
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
            for what, values in json.loads(done.stdout).items():
                show(f"{what}, block of {num_envs} x 20 frames, {resp}", values, "us")


def installed(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    start_up()
    acting(64)
    acting(256)
    transport()
