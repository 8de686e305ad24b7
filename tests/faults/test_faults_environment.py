"""Environments that fail, hang or crash: the actor goes on or ends in order, and pushes no half."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import redis

from impala_redis.common.blocks import wire
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import Programs, eventually

pytestmark = [pytest.mark.processes, pytest.mark.fault(45)]

# CartPole, but after so many steps it breaks; `once` as long as no file says that it has.
MODULE = """
import ctypes, os, time
from pathlib import Path
import gymnasium, numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

def sleep():
    (HERE / "asleep").touch()
    time.sleep(1000)

class Brittle(CartPoleEnv):
    def __init__(self, how="", after=50, marker=None, **options):
        super().__init__(**options)
        self.how, self.after, self.marker, self.steps = how, after, marker, 0
        if how == "made" and not (HERE / "first").exists():
            (HERE / "first").touch()  # by the learner, which looks at the spaces of one
        elif how == "made":
            sleep()

    def breaks(self):
        self.steps += 1
        if self.steps < self.after or (self.marker and Path(self.marker).exists()):
            return False
        if self.marker:
            Path(self.marker).touch()
        return True

    def step(self, action):
        result = super().step(action)
        if self.how == "slow":
            time.sleep(0.25)
            return result
        if self.how == "reset" or not self.breaks():
            return result
        if self.how == "hang":
            sleep()
        if self.how == "crash":
            ctypes.string_at(0)
        if self.how == "shape":
            return (np.zeros(7, np.float32), *result[1:])
        raise RuntimeError("the simulator is gone")

    def close(self):
        super().close()
        raise RuntimeError("not even this")

    def reset(self, **options):
        if self.marker and self.marker.endswith("twice.done") and Path(self.marker).exists():
            if not Path(self.marker + "2").exists():
                Path(self.marker + "2").touch()
                raise RuntimeError("no new beginning")
        if self.how == "stuck":
            sleep()
        if self.how == "reset" and self.breaks():
            raise RuntimeError("no new episode")
        return super().reset(**options)

def register(name, **options):
    gymnasium.register(name, lambda **more: Brittle(**options, **more), max_episode_steps=500)

HERE = Path(__file__).parent
# Breaks in a step, and then in the first reset after that.
register("Twice-v0", how="step", after=50, marker=str(HERE / "twice.done"))
for how in ("step", "reset", "shape", "hang", "crash"):
    after = 3 if how == "reset" else 50
    register(f"{how.title()}Once-v0", how=how, after=after, marker=str(HERE / f"{how}.done"))
    register(f"{how.title()}Always-v0", how=how, after=after)
register("Slow-v0", how="slow")
register("Stuck-v0", how="stuck")
register("Made-v0", how="made")
"""
SMALL = ("--envs-per-actor", "2", "--unroll-length", "5", "--batch-size", "8")
ENDLESS = (
    *("--preset", "cartpole", "--stop-at-return", "none", "--total-frames", "500_000_000"),
    *("--batch-size", "32", "--queue-blocks", "4"),
)


class Stage:
    """A learner of a brittle environment, and what an actor of it is started with."""

    def __init__(self, programs: Programs, url: str, run: str, env: str) -> None:
        (programs.folder / "brittle.py").write_text(MODULE)
        self.programs = programs
        self.variables = {
            "IMPALA_REDIS_URL": url,
            "IMPALA_RUN": run,
            "PYTHONPATH": str(programs.folder),
        }
        self.monitor = MonitorLink(url, run, "test")
        options = ("--env", f"brittle:{env}", *SMALL, "--run-dir", "run")
        self.learner = programs.start("impala-learner", *ENDLESS, *options, **self.variables)
        self.learner.says("ready")

    def actor(self, *options: str) -> Any:
        command = ("impala-actor", "--env-module", "brittle", *options)
        return self.programs.start(*command, **self.variables)

    def pushed(self) -> list[str]:
        """The actors that have pushed a block."""
        listed = self.monitor.read_actors()
        return [name for name, figures in listed.items() if figures["accepted"] != "0"]

    def consumed(self) -> int:
        return int(self.monitor.read_books()["consumed"])


def check_the_list(url: str, run: str, stage: Stage) -> None:
    """Every block that was pushed was whole and fit."""
    books = stage.monitor.read_books()
    assert residual(books) == 0
    assert books["dead_lettered"] == 0
    spec_reply = stage.monitor.read_spec()
    assert spec_reply is not None
    spec = RunSpec.from_json(spec_reply.json)
    with redis.Redis.from_url(url) as client:
        for frame in client.lrange(f"impala:{{{run}}}:trajectories", 0, -1):
            assert wire.unpack_block(frame, spec).trajectory.actions.shape == (5, 2)


@pytest.mark.parametrize("how", ["Step", "Reset", "Shape"])
def test_an_environment_that_fails_once_is_made_anew_by_the_same_actor(
    programs: Programs, redis_url: str, run_name: str, how: str
) -> None:
    # given an environment that breaks once
    stage = Stage(programs, redis_url, run_name, f"{how}Once-v0")
    actor = stage.actor()

    # when it has
    output = actor.says("made anew")

    # then the same actor plays on, and what it pushes is whole
    assert f"brittle:{how}Once-v0 failed in" in output
    before = stage.consumed()
    eventually(lambda: stage.consumed() > before + 20)
    assert actor.process.poll() is None
    assert "Traceback" not in actor.output
    check_the_list(redis_url, run_name, stage)


def test_an_environment_that_also_fails_as_it_is_made_anew_gets_another_chance(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    stage = Stage(programs, redis_url, run_name, "Twice-v0")
    actor = stage.actor()
    actor.says("no new beginning (brittle.py")
    before = stage.consumed()
    eventually(lambda: stage.consumed() > before + 20)
    assert "Traceback" not in actor.output
    check_the_list(redis_url, run_name, stage)


def test_an_environment_that_keeps_failing_ends_its_actor_with_a_code(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    stage = Stage(programs, redis_url, run_name, "StepAlways-v0")
    actor = stage.actor()
    assert actor.code() == 3
    assert "error: brittle:StepAlways-v0 failed in step: RuntimeError: the simulator is gone" in (
        actor.output
    )
    assert actor.output.count("made anew") == 3
    check_the_list(redis_url, run_name, stage)


def test_an_environment_that_hangs_ends_its_actor_with_a_code(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    stage = Stage(programs, redis_url, run_name, "HangAlways-v0")
    actor = stage.actor("--step-timeout-s", "1")
    assert actor.code() == 18
    assert "error: an environment hangs: a step of 2 environments is not done after 1 s" in (
        actor.output
    )
    assert "only slow, raise --step-timeout-s, or lower --envs-per-actor or its own" in actor.output
    check_the_list(redis_url, run_name, stage)


def test_an_environment_that_hangs_as_it_begins_ends_its_actor_with_a_code(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    stage = Stage(programs, redis_url, run_name, "Stuck-v0")
    actor = stage.actor("--step-timeout-s", "1")
    assert actor.code() == 18
    assert "the making and first reset of 2 environments is not done after 1 s" in actor.output


def test_an_unroll_may_take_longer_than_a_step_may(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # given steps of half a second, five in an unroll, and actors that take 1.5 s for a hang, one of
    # them by the option's name in release 0.1
    stage = Stage(programs, redis_url, run_name, "Slow-v0")
    actors = [stage.actor("--step-timeout-s", "1.5"), stage.actor("--unroll-timeout-s", "1.5")]

    # then both bring blocks
    eventually(lambda: len(stage.pushed()) == 2, what="a block of each actor")
    assert [actor.process.poll() for actor in actors] == [None, None]
    assert "--unroll-timeout-s is now --step-timeout-s: it bounds a step" in actors[1].output
    assert "--unroll-timeout-s" not in actors[0].output


@pytest.mark.parametrize("how", ["Hang", "Crash"])
def test_train_puts_another_actor_in_the_place_of_one_that_hung_or_crashed(
    programs: Programs, how: str
) -> None:
    (programs.folder / "brittle.py").write_text(MODULE)
    code, output = programs.run(
        *("impala-train", "--preset", "cartpole", "--env", f"brittle:{how}Once-v0", *SMALL),
        *("--stop-at-return", "none", "--total-frames", "2000", "--run-dir", "run"),
        PYTHONPATH=str(programs.folder),
        IMPALA_STEP_TIMEOUT_S="1",
    )
    assert code == 0, output
    assert "actor-0.1 takes its place" in output
    result = json.loads((programs.folder / "run" / "result.json").read_text())
    assert result["status"] == "finished"


ODD = """
import gymnasium, numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

class Odd(CartPoleEnv):
    made = 0
    def __init__(self, reward=None, noise=0.0, only=None, **options):
        super().__init__(**options)
        self.reward, self.noise = reward, noise
        self.odd = only is None or Odd.made % 8 == only
        Odd.made += 1
    def step(self, action):
        observation, reward, *rest = super().step(action)
        if self.odd and self.np_random.random() < self.noise:
            observation = observation * np.nan
        return observation, self.reward if self.odd and self.reward else reward, *rest

def register(name, **options):
    gymnasium.register(name, lambda **more: Odd(**options, **more), max_episode_steps=500)

register("Beyond-v0", reward=1e39)
register("Noise-v0", noise=0.001)
register("OneOfEight-v0", reward=1e39, only=3)
"""


@pytest.mark.fault(28)
@pytest.mark.parametrize(
    ("env", "least", "most", "cause"),
    [
        # A thousandth of the observations, of which a column has 11: about 1.1 % of the columns.
        ("Noise-v0", 0.003, 0.03, "refused_observations"),
        ("OneOfEight-v0", 0.1, 0.15, "refused_rewards"),
    ],
)
def test_numbers_that_are_none_cost_the_columns_that_hold_them(
    programs: Programs, env: str, least: float, most: float, cause: str
) -> None:
    # when an environment gives some is trained on
    (programs.folder / "odd.py").write_text(ODD)
    code, output = programs.run(
        *("impala-train", "--env", f"odd:{env}", "--run-dir", "run", "--unroll-length", "10"),
        *("--total-frames", "20000", "--envs-per-actor", "8", "--reward-clipping", "none"),
        PYTHONPATH=str(programs.folder),
    )

    # then the training goes to its end, and what was refused is known by share and cause
    assert code == 0, output
    result = json.loads((programs.folder / "run" / "result.json").read_text())
    assert result["status"] == "finished"
    assert result["frames"] >= 20000
    assert least < result["refused"]["refused_share"] < most
    assert list(result["refused"]["why"]) == [cause]
    assert "left out: " in output
    last = json.loads((programs.folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["blocks_refused"] == 0
    assert last["updates_skipped"] == 0


@pytest.mark.fault(28)
def test_a_run_that_refuses_all_says_why_on_the_terminal(programs: Programs) -> None:
    # given an environment whose every reward is beyond float32
    (programs.folder / "odd.py").write_text(ODD)
    train = programs.start(
        *("impala-train", "--env", "odd:Beyond-v0", "--run-dir", "run", "--envs-per-actor", "2"),
        PYTHONPATH=str(programs.folder),
    )

    # when it has run for some seconds
    train.says("columns refused, 100.0 % of the last ones: rewards are not finite")
    train.send(signal.SIGINT)

    # then it is also in the result
    assert train.code() == 130
    result = json.loads((programs.folder / "run" / "result.json").read_text())
    assert (result["frames"], result["refused"]["refused_share"]) == (0, 1.0)
    assert list(result["refused"]["why"]) == ["refused_rewards"]


@pytest.mark.parametrize(
    "env",
    ["Stuck-v0", *(pytest.param(e, marks=pytest.mark.full) for e in ("Made-v0", "HangAlways-v0"))],
)
def test_an_actor_ends_in_time_when_asked_to_whatever_its_environments_are_in(
    programs: Programs, redis_url: str, run_name: str, env: str
) -> None:
    # given an actor whose environments take minutes to be made, to be reset or to take a step
    stage = Stage(programs, redis_url, run_name, env)
    actor = stage.actor()
    eventually((programs.folder / "asleep").exists, what="an environment that sleeps")

    # when it is asked to end
    actor.send(signal.SIGTERM)

    # then it does
    assert actor.code(15.0) in (0, 130), actor.output
    assert "Traceback" not in actor.output


def test_train_tells_once_how_long_a_block_of_slow_environments_takes(programs: Programs) -> None:
    # given two actors whose blocks take 20 s
    (programs.folder / "brittle.py").write_text(MODULE)
    train = programs.start(
        *("impala-train", "--preset", "cartpole", "--env", "brittle:Slow-v0", "--run-dir", "run"),
        *("--envs-per-actor", "2", "--unroll-length", "40", "--num-actors", "2"),
        PYTHONPATH=str(programs.folder),
    )

    # then the terminal says so long before the first one is there
    train.says("a step of 2 environments takes ")
    logs = [programs.folder / "run" / "logs" / f"actor-{i}.log" for i in range(2)]
    eventually(lambda: all("a step of 2" in log.read_text() for log in logs))
    (step_s,) = re.findall(
        r"takes ([\d.]+) s, so a block of 2 x 40 steps takes \d\d s;", train.output
    )
    assert 0.5 <= float(step_s) < 1
    train.send(signal.SIGINT)
    assert train.code() == 130
    assert train.output.count("for sooner blocks lower --envs-per-actor (or") == 1


def test_a_module_that_only_the_run_names_is_not_imported(
    programs: Programs, redis_url: str, run_name: str, tmp_path: Path
) -> None:
    # given a run whose environment is made by a module
    stage = Stage(programs, redis_url, run_name, "StepOnce-v0")

    # when an actor or an evaluator is started by someone who has not named it
    for command in (("impala-actor",), ("impala-eval",)):
        code, output = programs.run(*command, **stage.variables)

        # then it does not import it, and says what to do
        assert code == 2, output
        assert "if you trust it, add --env-module brittle" in output
