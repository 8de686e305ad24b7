"""The learner's program with the engine of a GPU, on a CPU: updates end late, as a graph."""

import json
import shlex
import signal
import sys

import pytest

from impala_redis.common.records import checkpoint
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import ROOT, Programs, eventually

pytestmark = pytest.mark.processes

LEARNER = f"{shlex.quote(sys.executable)} {shlex.quote(str(ROOT / 'tests/pretended_gpu.py'))}"
HERE = {"PYTHONPATH": str(ROOT / "tests")}
SMALL = "--env CartPole-v1 --batch-size 8 --envs-per-actor 4 --unroll-length 8 --run-dir run"


def test_a_run_one_update_ahead_is_stopped_resumed_and_finished_with_even_books(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # given such a learner, with a bound of the policy lag and two actors
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name, **HERE}
    options = f"{LEARNER} {SMALL} --max-policy-lag 4 --checkpoint-interval-s 0.2"
    learner = programs.shell(f"{options} --total-frames 1000000000", **variables)
    actors = [programs.start("impala-actor", "--exit-with-run", **variables) for _ in range(2)]
    run = programs.folder / "run"
    eventually(lambda: len(list((run / "checkpoints").glob("*.json"))) >= 3, what="checkpoints")

    # when it is stopped
    learner.send(signal.SIGTERM)
    assert learner.code() == 130, learner.output

    # then no update was left under way: the checkpoint has all that was trained on
    saved, result = checkpoint.load(run), json.loads((run / "result.json").read_text())
    assert saved.facts["updates"] == result["updates"] == saved.facts["optimizer_steps"] > 0
    assert saved.facts["frames"] == result["frames"]

    # and it goes on until it has trained on as much as it should
    goal = result["frames"] + 2000
    again = programs.shell(f"{options} --total-frames {goal} --resume", **variables)
    assert again.code() == 0, again.output
    for actor in actors:
        assert actor.code() == 0, actor.output

    # with updates that were one graph each, no lag beyond the bound, and even books
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("graph_s" in record for record in records)
    assert all(
        record["policy_lag_max"] <= 4 + 3 for record in records if "policy_lag_max" in record
    )
    books = MonitorLink(redis_url, run_name, "monitor").read_books()
    assert residual(books) == 0
    assert json.loads((run / "result.json").read_text())["status"] == "finished"
