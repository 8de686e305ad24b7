"""Several tasks through the real programs: actors join and leave, and each task keeps its share."""

import json
import signal

import pytest

from impala_redis.common.transport.monitor import MonitorLink, residual
from support import Programs, eventually

pytestmark = pytest.mark.processes

TASKS = """
[[tasks]]
name = "long"
env = "CartPole-v1"
share = 2
random = 20.0
reference = 500.0

[[tasks]]
name = "short"
env = "CartPole-v0"
reference = 200.0

[[tasks]]
name = "odd"
env = "odd:Odd-v0"
reward_scale = 0.1
env_kwargs = {faulty = 0.2}
"""
# CartPole, in which now and then a reward is no number.
ODD = """
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv


class Odd(CartPoleEnv):
    def __init__(self, faulty):
        super().__init__()
        self.faulty = faulty

    def step(self, action):
        seen, reward, *ends = super().step(action)
        wrong = self.np_random.random() < self.faulty
        return seen, float("nan") if wrong else reward, *ends


gymnasium.register("Odd-v0", Odd, max_episode_steps=50)
"""
SHARES = {"long": 0.5, "short": 0.25, "odd": 0.25}


def test_each_task_keeps_its_share_while_actors_join_and_leave(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # given tasks of which none has a fault
    (programs.folder / "tasks.toml").write_text(TASKS.replace("faulty = 0.2", "faulty = 0.0"))
    (programs.folder / "odd.py").write_text(ODD)
    there = ("--redis-url", redis_url, "--run", run_name)
    learner = programs.start(
        *("impala-learner", *there, "--tasks", "tasks.toml", "--run-dir", "run"),
        *("--hidden-sizes", "16", "--envs-per-actor", "8", "--batch-size", "16"),
        *("--log-interval-s", "0.1", "--engine", "torch"),
    )
    actor = ("impala-actor", *there, "--env-module", "odd")

    def frames() -> int:
        lines = (programs.folder / "run" / "metrics.jsonl").read_text().splitlines()
        return int(json.loads(lines[-1])["frames"]) if lines else 0

    def another(number: int) -> None:
        wanted = frames() + number
        eventually(lambda: frames() >= wanted, what=f"{number} frames more")

    # when there is one actor, then four, then two
    learner.says("waiting for the first batch")
    actors = [programs.start(*actor)]
    another(3_000)
    actors += [programs.start(*actor) for _ in range(3)]
    for one in actors[1:]:
        one.says("joined")
    another(6_000)
    for one in actors[:2]:
        one.send(signal.SIGTERM)
        assert one.code() == 0, one.output
    another(6_000)
    for one in [*actors[2:], learner]:
        one.send(signal.SIGTERM)
    assert learner.code() == 130, learner.output

    # then
    last = json.loads((programs.folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    trained = {name: last[f"task_frames:{name}"] for name in SHARES}
    assert sum(trained.values()) == last["frames"]
    for name, share in SHARES.items():
        assert abs(trained[name] / last["frames"] - share) < 0.05 * share
    link = MonitorLink(redis_url, run_name, "test")
    assert residual(link.read_books()) == 0
    link.close()


@pytest.mark.fault(66)
def test_a_fault_in_one_task_harms_no_other(programs: Programs) -> None:
    # given a task whose rewards are no numbers now and then
    (programs.folder / "tasks.toml").write_text(TASKS)
    (programs.folder / "odd.py").write_text(ODD)

    # when
    code, output = programs.run(
        *("impala-train", "--tasks", "tasks.toml", "--run-dir", "run", "--total-frames", "20000"),
        *("--hidden-sizes", "16", "--envs-per-actor", "8", "--batch-size", "12"),
    )

    # then nearly all of its columns are left out, and none of another task
    assert code == 0, output
    last = json.loads((programs.folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["refused_rewards"] == last["columns_refused"] > 0
    assert last["task_frames:odd"] < 0.2 * last["frames"]
    assert abs(last["task_frames:long"] / last["task_frames:short"] - 2) < 0.1
    assert not last["updates_skipped"]
