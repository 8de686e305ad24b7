"""Several learners of one run, as torchrun starts them: real processes, killed for real."""

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from chaos.servers import OwnServer
from impala_redis.common.transport.monitor import MonitorLink, residual
from impala_redis.common.transport.situation import slow_rank_in
from support import BIN, Program, Programs, children_of, eventually, is_running

# Each attempt of torchrun imports torch anew for each learner: that takes long beside other tests.
pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


def start_group(programs: Programs, ranks: int, *options: str, restarts: int = 3) -> Program:
    torchrun = ("--standalone", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts))
    command = ("torchrun", *torchrun, "--no-python", "--", str(BIN / "impala-learner"))
    return programs.start(*command, *options, cold=True, OMP_NUM_THREADS="1")


def result_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def version(raw: redis.Redis, run: str) -> int:
    return int(raw.hget(f"impala:{{{run}}}:weights", "version") or -1)


def balance(url: str, run: str) -> int:
    """By how many blocks the books are wrong."""
    link = MonitorLink(url, run, "test")
    try:
        return residual(link.read_books())
    finally:
        link.close()


def rank_pids(torchrun: Program) -> list[int]:
    """The learners' process numbers, by rank."""
    found = {}
    for pid in children_of(torchrun.pid):
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks = [int(entry[5:]) for entry in variables if entry.startswith(b"RANK=")]
        if ranks:
            found[ranks[0]] = pid
    return [found[rank] for rank in sorted(found)]


def kill_one_of_two(group: Program, killed: int, reached: Callable[[], int]) -> None:
    """Kills a learner of a group; returns when there are updates again."""
    learners = rank_pids(group)
    os.kill(learners[killed], signal.SIGKILL)
    eventually(lambda: not is_running(learners[1 - killed]), what="the end of the other one")
    before = reached()
    eventually(lambda: reached() > before, what="further updates")


def test_two_learners_solve_cartpole_as_one_and_lose_no_block(
    programs: Programs, tmp_path: Path, redis_url: str, run_name: str
) -> None:
    # when
    options = ("--learners", "2", "--run", run_name, "--redis-url", redis_url)
    code, output = programs.run("impala-train", "--preset", "cartpole", *options, timeout_s=150)

    # then
    assert code == 0, output
    result = result_in(tmp_path / "runs" / run_name)
    assert (result["status"], result["ranks"]) == ("solved", 2)
    assert result["frames"] < 1_500_000
    assert balance(redis_url, run_name) == 0
    records = (tmp_path / "runs" / run_name / "metrics.jsonl").read_text().splitlines()
    last = json.loads(records[-1])
    assert last["ranks"] == 2
    assert 0.0 <= last["standby_share:1"] <= 1.0


def test_learners_that_are_killed_come_back_with_all_others_and_go_on(
    programs: Programs, tmp_path: Path, redis_url: str, raw: redis.Redis, run_name: str
) -> None:
    # given a run in the middle of training
    server = ("--run", run_name, "--redis-url", redis_url)
    frames = ("--total-frames", "900_000", "--stop-at-return", "none")
    group = start_group(
        programs, 2, "--preset", "cartpole", *frames, "--checkpoint-interval-s", "1", *server
    )
    actor = programs.start("impala-actor", *server)
    eventually(lambda: version(raw, run_name) > 30, 120, "the first updates")

    # when each of the two learners is killed, then new ones make updates, from where the run was
    for killed in (1, 0):
        kill_one_of_two(group, killed, partial(version, raw, run_name))
        assert actor.process.poll() is None

    # and in the end nothing is missing
    assert group.code() == 0, group.output
    result = result_in(tmp_path / "runs" / run_name)
    assert result["status"] == "finished"
    assert result["frames"] >= 900_000
    assert balance(redis_url, run_name) == 0
    assert not (tmp_path / "runs" / f"{run_name}-2").exists()


def test_a_run_goes_on_with_another_number_of_learners_and_stops_with_all_of_them(
    programs: Programs, tmp_path: Path, redis_url: str, raw: redis.Redis, run_name: str
) -> None:
    # given a run of one learner that was stopped
    server = ("--run", run_name, "--redis-url", redis_url)
    endless = ("--preset", "cartpole", "--total-frames", "500_000_000", "--stop-at-return", "none")
    alone = programs.start("impala-learner", *endless, *server)
    programs.start("impala-actor", *server)
    eventually(lambda: version(raw, run_name) > 10, what="the first updates")
    alone.send(signal.SIGTERM)
    alone.code()
    first = result_in(tmp_path / "runs" / run_name)

    # when a group goes on, and torchrun is asked to stop
    group = start_group(programs, 2, "--resume", *server)
    eventually(lambda: version(raw, run_name) > first["updates"] + 20, 120, "updates of the group")
    group.send(signal.SIGTERM)
    group.code()

    # then it has saved its state and given the run back, and one learner goes on to the end
    second = result_in(tmp_path / "runs" / run_name)
    assert (second["status"], second["ranks"]) == ("interrupted", 2)
    assert second["updates"] > first["updates"]
    assert raw.get(f"impala:{{{run_name}}}:lock") is None
    more = ("--resume", "--total-frames", str(second["frames"] + 20_000))
    code, output = programs.run("impala-learner", *server, *more)
    assert code == 0, output
    third = result_in(tmp_path / "runs" / run_name)
    assert (third["status"], third.get("ranks")) == ("finished", None)
    assert third["frames"] >= second["frames"] + 20_000
    assert balance(redis_url, run_name) == 0


def test_what_no_attempt_can_do_is_said_once_and_not_tried_again(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # when
    server = ("--run", run_name, "--redis-url", redis_url)
    group = start_group(programs, 2, "--env", "NoSuchGame-v0", *server)

    # then
    assert group.code() == 1  # torchrun's own code
    assert group.output.count("error: ") == 1, group.output
    assert "error: there is no environment 'NoSuchGame-v0'" in group.output


SLOW = """
import os
import time

from torch import nn


class Slow(nn.Module):
    features_dim = 4

    def __init__(self, observation_space):
        super().__init__()

    def forward(self, observations):
        if os.environ.get("RANK") == "1":
            time.sleep(0.02)
        return observations
"""


@pytest.mark.timed
def test_a_slow_learner_is_named_and_a_run_that_the_server_lost_is_opened_again(
    programs: Programs, tmp_path: Path, own_server: OwnServer, run_name: str
) -> None:
    # given a group, of which one computes slowly with a network of the user's own
    (tmp_path / "slow.py").write_text(SLOW)
    url = own_server.url
    server = ("--run", run_name, "--redis-url", url)
    endless = ("--preset", "cartpole", "--total-frames", "500_000_000", "--stop-at-return", "none")
    group = start_group(programs, 2, *endless, "--network", "slow.py:Slow", *server)
    actor = programs.start("impala-actor", "--network-module", "slow.py", *server)
    with own_server.client() as raw:
        records = tmp_path / "runs" / run_name / "metrics.jsonl"

        def slow() -> int | None:
            text = records.read_text() if records.exists() else ""
            whole = text[: text.rfind("\n") + 1].splitlines()
            named = slow_rank_in(json.loads(whole[-1])) if whole else None
            return named.rank if named else None

        eventually(lambda: slow() == 1, 120, "records to name rank 1")

        # when the server loses all that it had
        raw.flushall()

        # then the learners open and join the run again, and go on
        before = eventually(lambda: version(raw, run_name) + 1, what="the run")
        eventually(lambda: version(raw, run_name) > before + 5, what="further updates")
        group.send(signal.SIGTERM)
        group.code()
    assert "OPENING THE RUN AGAIN" in group.output
    assert "JOINING THE RUN AGAIN" in group.output
    result = result_in(tmp_path / "runs" / run_name)
    assert (result["status"], result["ranks"]) == ("interrupted", 2)
    assert balance(url, run_name) == 0
    assert actor.process.poll() is None
