"""Rows 24 to 31 of the fault matrix: data that is damaged, hostile, of another run, or too much."""

import dataclasses
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pytest
import redis

from chaos import fuzz
from chaos.servers import OwnServer
from impala_redis.common.blocks import wire
from impala_redis.common.blocks.checks import MOST_NUMBER
from impala_redis.common.blocks.trajectory import Block, Episode
from impala_redis.common.errors import ImpalaError
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.records import checkpoint
from impala_redis.common.run.spaces import discrete
from impala_redis.common.run.spec import WIRE_VERSION, RunSpec
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import ROOT, Program, Programs, eventually

# A block is a batch.
ENDLESS = (
    *("--preset", "cartpole", "--envs-per-actor", "32", "--batch-size", "32"),
    *("--queue-blocks", "4"),
    *("--total-frames", "500_000_000", "--stop-at-return", "none"),
)
# Long enough that nothing is dropped as the oldest: every block must then end in its counter.
LONG_LIST = ("--queue-blocks", "2000")
OTHER_VERSIONS = (0, WIRE_VERSION - 1, WIRE_VERSION + 1, 65_535)
# What is promised of one input, and of the fault's end.
CPU_S, GROWTH_MB = 0.05, 50.0
# A call of a server is made once, so its time holds what a busy machine adds to it.
CALL_CPU_S = 0.25
NOT_FINITE_LIMIT = 20  # updates in a row
HUGE = 3.4e38  # finite, and its square is not


class Run:
    """A run in Redis as an operator, an observer and a hostile client see it."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.variables: dict[str, Any] = {"IMPALA_REDIS_URL": url, "IMPALA_RUN": name}
        self.operator = redis.Redis.from_url(url)
        self._monitor = MonitorLink(url, name, "test")
        self._hostile = ActorLink(url, name, "hostile")
        self._sequence = 0

    @property
    def spec(self) -> RunSpec:
        return RunSpec.from_json(self.operator.hget(self.key("spec"), "json"))  # type: ignore[arg-type]

    def key(self, name: str) -> str:
        return f"impala:{{{self.name}}}:{name}"

    def push(self, message: bytes) -> None:
        """As an actor would."""
        self._sequence += 1
        reply = self._hostile.push("hostile#1", self._sequence, message, 2000)
        # A push that the client sent once more after a time-out finds itself stored already.
        assert reply.fate in ("stored", "duplicate")

    def push_by_hand(self, message: bytes) -> None:
        self.operator.rpush(self.key("trajectories"), message)

    def books(self) -> dict[str, Any]:
        return self._monitor.read_books()

    def refused(self) -> Counter[str]:
        """Refused blocks by reason."""
        prefix = "dead_lettered:"
        books = self.books()
        return Counter({k.removeprefix(prefix): n for k, n in books.items() if prefix in k})

    def weights(self) -> tuple[int, wire.Weights]:
        """What is published; MessageRefused if it is not sound."""
        payload: Any = self.operator.hget(self.key("weights"), "payload")
        return wire.unpack_weights(payload, self.spec)

    def trains_on(self, blocks: int = 50) -> None:
        """Waits for progress."""
        consumed = self.books()["consumed"]
        eventually(lambda: self.books()["consumed"] >= consumed + blocks, what="more training")

    def close(self) -> None:
        for link in (self.operator, self._monitor, self._hostile):
            link.close()


@pytest.fixture
def run(redis_url: str, run_name: str) -> Iterator[Run]:
    made = Run(redis_url, run_name)
    yield made
    made.close()


class Live(Run):
    """A run with a learner and an actor at work."""

    learner: Program
    actor: Program
    directory: Path


@pytest.fixture(scope="module")
def live(redis_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One run for all the hostile blocks of this file: nothing of them may end it."""
    made = Live(redis_server.url, "hostile-data")
    programs = Programs(tmp_path_factory.mktemp("live"))
    made.directory = programs.folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("IMPALA_")]:
            patch.delenv(name)
        options = (*ENDLESS, *LONG_LIST, "--run-dir", "run", "--log-interval-s", "0.1")
        made.learner = programs.start("impala-learner", *options, **made.variables)
        made.actor = programs.start("impala-actor", **made.variables)
    try:
        made.learner.says("first batch is here")
        yield made
    finally:
        made.close()
        programs.end()


class Kind(NamedTuple):
    """A block that must not be trained on, and the counter it must end in."""

    row: int
    name: str
    reason: str
    message: bytes


def kinds(spec: RunSpec) -> list[Kind]:
    """One block of each kind that a learner of `spec` may meet."""
    n = spec.envs_per_actor
    good = wire.pack_block(fuzz.make_block(spec, n), spec)
    header, body = opened(good)
    weights = {name: np.ones(shape, np.float32) for name, shape in spec.parameter_shapes().items()}
    flipped = bytearray(good)
    flipped[-5] ^= 4
    bombs = fuzz.message_bombs()

    def sealed(
        changes: dict[str, Any] | None = None, raw: bytes = body, version: int = WIRE_VERSION
    ) -> bytes:
        packed: bytes = msgpack.packb(header | (changes or {}))
        return fuzz.seal(1, packed, raw, version)

    def with_value(name: str, value: float) -> bytes:
        """In every column: one bad number costs a column, and not the block."""
        block = fuzz.make_block(spec, n)
        getattr(block.trajectory, name)[1] = value
        return wire.pack_block(block, spec)

    def of(**changes: Any) -> RunSpec:
        return dataclasses.replace(spec, **changes)

    def of_another(other: RunSpec) -> bytes:
        return wire.pack_block(fuzz.make_block(other, n), other)

    def disguised(other: RunSpec) -> bytes:
        return sealed(raw=opened(of_another(other))[1])

    wide = dataclasses.replace(spec.observation, shape=(7,))
    exact = dataclasses.replace(spec.observation, dtype="float64")
    flags = spec.unroll_length * n  # the mask is the last but one of the rows
    episodes = len(body) - 16 - flags
    return [
        Kind(24, "nothing", "malformed", b""),
        Kind(24, "text", "malformed", b"garbage"),
        Kind(24, "zeros", "malformed", bytes(1000)),
        Kind(24, "a pickle", "malformed", b"\x80\x04\x95" + bytes(100)),
        Kind(24, "only the prefix", "malformed", good[: fuzz.PREFIX.size]),
        Kind(24, "half", "malformed", good[: len(good) // 2]),
        Kind(24, "all but the last byte", "malformed", good[:-1]),
        Kind(24, "one byte more", "malformed", good + b"\0"),
        Kind(24, "two in one", "malformed", good + good),
        Kind(24, "one flipped bit", "malformed", bytes(flipped)),
        Kind(24, "weights", "malformed", wire.pack_weights(weights, 1, spec)),
        *(
            Kind(25, name, "malformed", bombs[f"block, {name}"].data)
            for name in ("64 x 64 x 14 empty lists", "2^32 - 1 items", "depth 100,000")
        ),
        Kind(27, "float64 observations", "schema", disguised(of(observation=exact))),
        Kind(27, "another shape", "schema", disguised(of(observation=wide))),
        Kind(27, "another unroll length", "schema", disguised(of(unroll_length=3))),
        Kind(27, "more environments than rows", "schema", sealed({"num_envs": n + 1})),
        Kind(27, "no environments", "schema", sealed({"num_envs": 0})),
        Kind(27, "a negative dimension", "schema", sealed({"num_envs": -n})),
        Kind(27, "a huge dimension", "schema", sealed({"num_envs": 2**62})),
        Kind(27, "a dimension of another type", "schema", sealed({"num_envs": [n]})),
        Kind(27, "more episodes than steps", "schema", sealed({"num_episodes": 2**31})),
        Kind(27, "objects", "schema", sealed({"dtype": "O"}, raw=b"\x80\x04\x95" + body)),
        Kind(27, "no rows", "schema", sealed(raw=b"")),
        *(
            Kind(28, f"{value} in {name}", "nonfinite", with_value(name, value))
            for name in ("observations", "rewards", "discounts", "behaviour_log_probs")
            for value in (math.nan, math.inf, -math.inf)
        ),
        Kind(28, "an action too high", "range", with_value("actions", spec.action.sizes[0])),
        Kind(28, "an action too low", "range", with_value("actions", -1)),
        Kind(28, "a probability above 1", "range", with_value("behaviour_log_probs", 0.1)),
        Kind(28, "a discount above 1", "range", with_value("discounts", 1.5)),
        Kind(28, "an absurd reward", "range", with_value("rewards", HUGE)),
        Kind(28, "a log-probability below all", "range", with_value("behaviour_log_probs", -HUGE)),
        Kind(28, "weights of the future", "range", sealed({"weights_version": 2**53})),
        *(Kind(28, name, "range", message) for name, message in lies(spec)),
        Kind(
            28,
            "flags of 2",
            "range",
            sealed(raw=body[:episodes] + b"\2" * n + body[episodes + n :]),
        ),
        *(Kind(30, f"version {v}", "version", sealed(version=v)) for v in OTHER_VERSIONS),
        Kind(31, "another environment", "spec", of_another(of(env="Acrobot-v1"))),
        Kind(31, "another observation space", "spec", of_another(of(observation=wide))),
        Kind(31, "another action space", "spec", of_another(of(action=discrete(3)))),
        Kind(31, "another network", "spec", of_another(of(hidden_sizes=(8,)))),
        Kind(31, "another unroll length", "spec", of_another(of(unroll_length=3))),
        Kind(31, "no fingerprint", "spec", sealed({"spec": None})),
    ]


def lies(spec: RunSpec) -> list[tuple[str, bytes]]:
    """Blocks of good rows, whose episodes would end a run as solved."""
    n, t = spec.envs_per_actor, spec.unroll_length
    block = fuzz.make_block(spec, n, actor="liar")

    def told(*episodes: Episode) -> bytes:
        return wire.pack_block(block._replace(episodes=episodes), spec)

    return [
        ("120 episodes of 1e9", told(*[Episode(1e9, 3, i % n) for i in range(120)])),
        ("an episode of 1e9 in each column", told(*[Episode(1e9, t, i) for i in range(n)])),
        ("episodes that are too short", told(*[Episode(1e9, 3, i) for i in range(n)])),
        ("too much for their length", told(*[Episode(1e12, t + 5, i) for i in range(n)])),
    ]


def opened(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and body of a good message."""
    length = fuzz.PREFIX.unpack_from(message)[3]
    rest = message[fuzz.PREFIX.size :]
    return msgpack.unpackb(rest[:length]), rest[length:]


def records(directory: Path) -> list[dict[str, Any]]:
    """The metrics so far; the last line may still be being written."""
    lines = (directory / "metrics.jsonl").read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def skipped_updates(directory: Path) -> int:
    """Updates so far whose loss or gradients were not finite."""
    return max((record["updates_skipped"] for record in records(directory)), default=0)


def assert_finite(found: list[dict[str, Any]]) -> None:
    """Every figure is there as a finite number (JSON as Python writes it knows NaN)."""
    for record in found:
        for name, value in record.items():
            for one in value if isinstance(value, list) else [value]:
                assert isinstance(one, int | float), name
                assert math.isfinite(one), name


# Inputs by the thousand, in a process of their own.


def fuzzer(*arguments: str, program: str = "fuzz.py", timeout_s: float = 60.0) -> dict[str, Any]:
    """What the fuzzer reports."""
    tests = ROOT / "tests"
    done = subprocess.run(
        [sys.executable, str(tests / "chaos" / program), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=os.environ | {"PYTHONPATH": str(tests)},
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


REASONS = ("malformed", "version", "spec", "schema", "nonfinite", "taken")
ENDS = {f"{kind} {reason}" for kind in ("block", "weights") for reason in REASONS}
ENDS |= {"block range", "spec mismatch", "spec taken"}


def assert_only_named_ends(report: dict[str, Any]) -> None:
    assert report["failures"] == []
    assert set(report["outcomes"]) == ENDS
    assert sum(report["outcomes"].values()) == report["count"]
    assert report["slowest_s"] < CPU_S
    assert report["growth_mb"] < GROWTH_MB


@pytest.mark.fault(24)
@pytest.mark.fault(27)
@pytest.mark.fault(28)
def test_twenty_thousand_mutated_inputs_are_refused_by_name_or_sound(chaos_seed: int) -> None:
    assert_only_named_ends(fuzzer(str(chaos_seed), "20000"))


@pytest.mark.full
@pytest.mark.timeout(900)  # it takes one or two, where it has a core to itself
@pytest.mark.fault(24)
@pytest.mark.fault(27)
@pytest.mark.fault(28)
def test_a_million_mutated_inputs_are_refused_by_name_or_sound(chaos_seed: int) -> None:
    sys.stdout.write(f"seed {chaos_seed}\n")
    assert_only_named_ends(fuzzer(str(chaos_seed), "1000000", timeout_s=880.0))


def assert_only_our_errors(report: dict[str, Any]) -> None:
    assert report["failures"] == []
    assert sum(report["outcomes"].values()) == report["count"]
    named = {error.__name__ for error in (ImpalaError, *_all_kinds(ImpalaError))}
    assert set(report["outcomes"]) <= {"taken", *named}
    assert {"taken", "UnsuitableServer", "RedisUnreachable"} <= set(report["outcomes"])
    assert report["slowest_s"] < CALL_CPU_S
    assert report["growth_mb"] < GROWTH_MB


def _all_kinds(error: type[Exception]) -> list[type[Exception]]:
    """The classes that are derived from it, and so on."""
    return [kind for one in error.__subclasses__() for kind in (one, *_all_kinds(one))]


@pytest.mark.fault(58)
def test_three_thousand_calls_of_a_server_that_may_reply_anything_end_by_name(
    chaos_seed: int,
) -> None:
    report = fuzzer(str(chaos_seed), "3000", program="fuzz_replies.py")
    assert_only_our_errors(report)
    # These two need more good replies in a row than so few calls bring.
    assert set(report["never_taken"]) <= {"LearnerLink.open", "OperatorLink.delete_run"}


@pytest.mark.full
@pytest.mark.timeout(1800)  # six minutes, where it has a core to itself
@pytest.mark.fault(58)
def test_a_million_calls_of_a_server_that_may_reply_anything_end_by_name(chaos_seed: int) -> None:
    sys.stdout.write(f"seed {chaos_seed}\n")
    arguments = (str(chaos_seed), "1000000")
    report = fuzzer(*arguments, program="fuzz_replies.py", timeout_s=1780.0)
    assert_only_our_errors(report)
    assert report["never_taken"] == []


def assert_cheap(report: dict[str, Any]) -> None:
    dear = {
        name: found
        for name, found in report.items()
        if found["cpu_s"] >= CPU_S or found["growth_mb"] >= GROWTH_MB
    }
    assert dear == {}


@pytest.mark.fault(25)
def test_a_message_made_to_exhaust_its_reader_costs_little() -> None:
    # when
    report = fuzzer("messages")

    # then: what a header holds beyond our fields is not looked at, and is at most 64 KiB
    assert_cheap(report)
    taken = {name for name, found in report.items() if found["outcome"] == "taken"}
    assert all("a field with" in name or name.startswith("weights, the most") for name in taken)
    assert len(report) - len(taken) >= 35


@pytest.mark.fault(25)
def test_a_spec_made_to_exhaust_its_reader_costs_little() -> None:
    report = fuzzer("specs", "60000")
    assert_cheap(report)
    assert {found["outcome"] for found in report.values()} == {"mismatch"}


@pytest.mark.fault(25)
def test_a_spec_of_megabytes_costs_little() -> None:
    report = fuzzer("specs", "3000000")
    assert_cheap(report)
    assert {found["outcome"] for found in report.values()} == {"mismatch"}


# Updates that would not be finite.


def bad_block(spec: RunSpec, sequence: int, name: str) -> bytes:
    """Finite numbers whose loss, or its gradient, is not: one batch of the preset cartpole."""
    block = fuzz.make_block(spec, spec.envs_per_actor, sequence)
    getattr(block.trajectory, name)[:] = HUGE
    block.trajectory.rewards[::2] *= -1
    return wire.pack_block(block, spec)


@pytest.mark.processes
@pytest.mark.fault(29)
@pytest.mark.parametrize(
    ("name", "activation", "kind"),
    [
        ("rewards", "tanh", "rewards"),
        pytest.param("behaviour_log_probs", "tanh", "log_probs", marks=pytest.mark.full),
        pytest.param("observations", "relu", "updates", marks=pytest.mark.full),
    ],
)
def test_a_stranger_whose_blocks_allow_no_finite_update_ends_no_run(
    programs: Programs, run: Run, name: str, activation: str, kind: str
) -> None:
    # given a learner that has no other blocks yet
    common = (*ENDLESS, *LONG_LIST, "--activation", activation, "--log-interval-s", "0.1")
    learner = programs.start("impala-learner", *common, "--run-dir", "run", **run.variables)
    learner.says("ready")
    spec, (_, before, _) = run.spec, run.weights()

    # when more of them come than would once have ended it
    for sequence in range(1, 2 * NOT_FINITE_LIMIT + 1):
        run.push(bad_block(spec, sequence, name))

    def settled() -> int:
        books = run.books()
        return int(books["consumed"] + books["dead_lettered"])

    # the last two may be a batch that is not settled yet
    eventually(lambda: settled() >= 2 * NOT_FINITE_LIMIT - 2, what="all are looked at")

    # then they changed no weight
    for parameter, array in run.weights()[1].items():
        assert np.array_equal(array, before[parameter])

    # and with an honest actor, and more of them, it trains on
    actor = programs.start("impala-actor", **run.variables)
    run.trains_on()
    for sequence in range(100, 110):
        run.push(bad_block(spec, sequence, name))
    run.trains_on()
    assert learner.process.poll() is None
    assert not np.array_equal(run.weights()[1]["policy.weight"], before["policy.weight"])
    assert residual(run.books()) == 0
    directory = programs.folder / "run"
    assert_finite(records(directory))

    # and its result says whose they were, and why
    learner.process.send_signal(signal.SIGINT)
    assert learner.code() == 130
    refused = json.loads((directory / "result.json").read_text())["refused"]
    assert f"refused_{kind}" in refused["why"]
    assert list(refused["by_actor"]) == ["fuzz"]
    assert "fuzz" in learner.output
    assert "Traceback" not in learner.output + actor.output


@pytest.mark.processes
@pytest.mark.fault(61)
def test_no_forged_block_solves_a_run(programs: Programs, run: Run) -> None:
    # given a run that ends when its mean return reaches the preset's goal
    learner = programs.start(
        *("impala-learner", "--preset", "cartpole", "--envs-per-actor", "32", "--run-dir", "run"),
        *("--batch-size", "32", "--queue-blocks", "4"),
        *LONG_LIST,
        **run.variables,
    )
    learner.says("ready")

    # when blocks tell of returns that their rows cannot have brought
    forged = lies(run.spec)
    for _, message in forged:
        run.push(message)

    # then they are refused, and it goes on
    eventually(lambda: run.refused() == {"range": len(forged)})
    programs.start("impala-actor", **run.variables)
    run.trains_on(20)
    assert learner.process.poll() is None
    assert "solved" not in learner.output
    assert residual(run.books()) == 0


@pytest.mark.processes
@pytest.mark.fault(29)
def test_weights_that_a_step_made_infinite_are_neither_published_nor_saved(
    programs: Programs, run: Run
) -> None:
    # given finite gradients and a step that is larger than float32
    learner = programs.start(
        *("impala-learner", *ENDLESS, "--run-dir", "run", "--checkpoint-interval-s", "0.001"),
        *("--optimizer", "rmsprop", "--rmsprop-decay", "1", "--grad-norm-clipping", "none"),
        *("--reward-scale", "1e12", "--learning-rate", "1e30"),
        **run.variables,
    )
    programs.start("impala-actor", **run.variables)

    # when it has trained
    code = learner.code()

    # then it has ended with the code of this, and every copy of the weights is finite
    assert code == 15, learner.output
    assert "Traceback" not in learner.output
    run.weights()
    saved = checkpoint.load(programs.folder / "run").tensors
    assert all(np.isfinite(array).all() for array in saved.values())
    assert residual(run.books()) == 0


@pytest.mark.processes
@pytest.mark.fault(29)
def test_a_learning_rate_beyond_float32_gets_a_sentence(programs: Programs, run: Run) -> None:
    learner = programs.start(
        *("impala-learner", *ENDLESS, "--run-dir", "run", "--learning-rate", "1e39"),
        **run.variables,
    )
    assert learner.code() == 2, learner.output
    assert "learning_rate must be" in learner.output
    assert "Traceback" not in learner.output


# Other versions and environments.


@pytest.mark.processes
@pytest.mark.fault(30)
def test_an_actor_of_a_run_that_speaks_another_version_says_upgrade_and_ends(
    programs: Programs, run: Run
) -> None:
    # given an actor at work
    learner = programs.start("impala-learner", *ENDLESS, "--run-dir", "run", **run.variables)
    actor = programs.start("impala-actor", **run.variables)
    learner.says("first batch is here")

    # when the run is opened by a program of another version (this learner would put it right)
    learner.send(signal.SIGSTOP)
    newer = json.loads(run.spec.to_json()) | {"wire_version": WIRE_VERSION + 1, "unheard_of": 1}
    run.operator.hset(run.key("spec"), mapping={"json": json.dumps(newer), "digest": "another"})

    # then it ends with its own code and the remedy, and so does one that comes later
    late = programs.start("impala-actor", **run.variables)
    for program in (actor, late):
        assert program.code() == 9, program.output
        assert "install the same version" in program.output
        assert "Traceback" not in program.output


@pytest.mark.processes
@pytest.mark.fault(25)
@pytest.mark.parametrize(
    "changes",
    [
        {"envs_per_actor": 4096, "unroll_length": 10_000},
        {"envs_per_actor": 4096, "observation": {"shape": [210, 160, 3], "dtype": "uint8"}},
        {"hidden_sizes": [65_536, 65_536]},
        {"lstm_size": 65_536},
        {"max_policy_age_s": 1e-300},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_an_actor_does_not_join_a_run_that_would_pin_or_pause_it(
    programs: Programs, run: Run, changes: dict[str, Any]
) -> None:
    # given a spec that somebody has written who may write all of a run
    document = json.loads(fuzz.SPECS[0].to_json())
    document["observation"] |= changes.pop("observation", {})
    spec = json.dumps(document | {"env": "CartPole-v1"} | changes)
    run.operator.hset(run.key("spec"), mapping={"json": spec, "digest": "d", "state": "running"})

    # when an actor reads it
    actor = programs.start("impala-actor", **run.variables)

    # then it ends at once, with the code of a spec that it cannot join and one sentence
    assert actor.code() == 9, actor.output
    assert "the run's spec " in actor.output
    assert "Traceback" not in actor.output


TWOFACED = """
import gymnasium
import numpy as np


class Two(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, ({features},), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros({features}, np.float32), {{}}

    def step(self, action):
        over = bool(self.np_random.random() < 0.1)
        return np.zeros({features}, np.float32), 1.0, over, False, {{}}


gymnasium.register("Two-v0", entry_point=Two)
"""


@pytest.mark.processes
@pytest.mark.fault(31)
def test_an_actor_whose_environment_is_another_one_is_refused_before_it_plays(
    programs: Programs, run: Run
) -> None:
    # given an environment that is not the same on two machines
    for machine, features in (("here", 2), ("there", 3)):
        (programs.folder / machine).mkdir()
        code = TWOFACED.format(features=features)
        (programs.folder / machine / "twofaced.py").write_text(code)
    here, there = ({"PYTHONPATH": str(programs.folder / m)} for m in ("here", "there"))
    learner = programs.start(
        *("impala-learner", "--env", "twofaced:Two-v0", "--run-dir", "run"),
        **(run.variables | here),
    )
    learner.says("ready")

    # when an actor of the other machine joins
    join = ("impala-actor", "--env-module", "twofaced")
    actor = programs.start(*join, **(run.variables | there))

    # then it is refused, told what differs, and has pushed nothing
    assert actor.code() == 3, actor.output
    assert "Two-v0 is another one on this machine" in actor.output
    assert "Traceback" not in actor.output
    assert run.books()["produced"] == 0

    # and one of the learner's machine is not
    programs.start(*join, **(run.variables | here))
    run.trains_on(blocks=5)
    assert learner.process.poll() is None


# More bytes than a block can have.


@pytest.mark.processes
@pytest.mark.fault(26)
def test_what_is_too_large_is_stopped_by_the_server_or_buried(
    programs: Programs, tmp_path: Path
) -> None:
    # given a server that takes no value above 1 MB, and a run at work there
    with OwnServer(tmp_path, "--proto-max-bulk-len", "1mb") as server:
        run = Run(server.url, "oversize")
        options = (*ENDLESS, *LONG_LIST, "--run-dir", "run")
        learner = programs.start("impala-learner", *options, **run.variables)
        actor = programs.start("impala-actor", **run.variables)
        learner.says("first batch is here")
        spec = run.spec

        # when a client sends more than that
        key = run.key("trajectories").encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(b"*3\r\n$5\r\nRPUSH\r\n$%d\r\n%b\r\n$2000000\r\n" % (len(key), key))
            answer = _until_closed(raw)

        # then the server has refused and closed before it took any of it
        assert re.match(rb"-ERR Protocol error: invalid bulk length", answer)
        assert run.books()["foreign"] == 0

        # and what fits the server and not the run is buried, with no more than its beginning
        header, body = opened(wire.pack_block(fuzz.make_block(spec, 32), spec))
        run.push_by_hand(bytes(1_000_000))
        run.push(fuzz.seal(1, msgpack.packb(header), body + bytes(1_000_000)))
        eventually(lambda: run.refused() == {"malformed": 1, "schema": 1})
        dead: Any = run.operator.lrange(run.key("dead"), 0, -1)
        assert max(len(record) for record in dead) < 4096 + 500

        # and what an honest actor sends has the size that follows from the spec
        def honest() -> list[bytes]:
            found: Any = run.operator.lrange(run.key("trajectories"), 0, -1)
            return list(found)

        waiting = eventually(honest, what="a block on the list")
        bound = wire.block_nbytes(spec, spec.envs_per_actor)
        assert max(len(message) for message in waiting) <= bound
        run.trains_on()
        assert residual(run.books()) == 0
        assert "Traceback" not in learner.output + actor.output
        run.close()
        programs.end()


def _until_closed(raw: socket.socket) -> bytes:
    """All that comes until the other end closes, in order or by a reset."""
    answer = b""
    try:
        while part := raw.recv(4096):
            answer += part
    except ConnectionResetError:
        pass
    return answer


# Blocks of every kind, pushed at a learner at work. These come last: it works until all are done.


@pytest.mark.processes
@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=pytest.mark.fault(row)) for row in (24, 25, 27, 28, 30, 31)],
)
def test_a_block_that_must_not_be_trained_on_ends_in_the_counter_of_its_reason(
    live: Live, row: int
) -> None:
    # given a learner at work, and what it has refused so far
    bad = [kind for kind in kinds(live.spec) if kind.row == row]
    expected = live.refused() + Counter([kind.reason for kind in bad] * 2)
    foreign, skipped = live.books()["foreign"], skipped_updates(live.directory)

    # when each kind is pushed by the push function and by hand
    for kind in bad:
        live.push(kind.message)
        live.push_by_hand(kind.message)

    # then each stands in its counter, and those by hand are known as such
    eventually(lambda: live.refused() == expected, what=f"{expected}")
    books = live.books()
    assert books["foreign"] == foreign + len(bad)
    assert books["dead_lettered"] == expected.total()
    assert books["dropped_oldest"] == 0
    assert residual(books) == 0

    # and training goes on, with finite figures and weights
    live.trains_on()
    assert live.learner.process.poll() is None
    seen = len(records(live.directory))

    def losses() -> list[object]:
        """Those in new records; a record lacks one that is not finite, or before an update."""
        return [r["total_loss"] for r in records(live.directory)[seen:] if "total_loss" in r]

    eventually(losses, what="a new record of updates")
    assert_finite(records(live.directory))
    assert skipped_updates(live.directory) == skipped
    live.weights()
    assert "Traceback" not in live.learner.output + live.actor.output


@pytest.mark.processes
@pytest.mark.fault(24)
def test_a_flood_of_garbage_neither_stops_the_training_nor_fills_the_log(live: Live) -> None:
    # given a learner at work
    before, lines = live.refused()["malformed"], live.learner.output.count("refused a block")

    # when a thousand blocks of garbage come at once
    pipe = live.operator.pipeline(transaction=False)
    for number in range(1000):
        pipe.rpush(live.key("trajectories"), b"garbage %d" % number)
    pipe.execute()

    # then they are gone soon, the newest hundred are kept to be looked at, and it trains on
    eventually(lambda: live.refused()["malformed"] == before + 1000)
    live.trains_on()
    assert live.operator.llen(live.key("dead")) == 100
    assert live.learner.output.count("refused a block") - lines <= 3
    assert residual(live.books()) == 0


@pytest.mark.processes
@pytest.mark.fault(29)
def test_numbers_that_are_legal_and_extreme_leave_weights_and_figures_finite(live: Live) -> None:
    # given blocks that nothing forbids
    spec = live.spec

    def block(sequence: int, **values: float) -> Block:
        made = fuzz.make_block(spec, spec.envs_per_actor, sequence, actor="extreme")
        for name, value in values.items():
            getattr(made.trajectory, name)[:] = value
        return made._replace(episodes=())

    extremes = [
        block(1, behaviour_log_probs=-MOST_NUMBER),
        block(2, behaviour_log_probs=0.0),
        block(3, mask=0),
        block(4, discounts=0.0, is_first=1),
        block(5, rewards=MOST_NUMBER),
        block(6, rewards=-MOST_NUMBER),
        block(7, observations=HUGE),
        block(8, observations=-HUGE, rewards=MOST_NUMBER),
        block(9, rewards=1e-45, observations=1e-45),
    ]
    dead, before = live.books()["dead_lettered"], live.weights()[0]

    # when they are trained on, between others
    for made in extremes:
        live.push(wire.pack_block(made, spec))
    live.trains_on(blocks=200)

    # then every weight and figure is finite, and new weights are published
    assert live.books()["dead_lettered"] == dead
    assert live.weights()[0] > before
    assert_finite(records(live.directory))
    assert live.learner.process.poll() is None
    assert "Traceback" not in live.learner.output
