"""Two learners of one population as a user starts them."""

import json
import signal
from pathlib import Path
from typing import Any

import click
import pytest
import redis
from click.testing import CliRunner

from chaos.servers import OwnServer
from impala_redis.common.records import checkpoint
from impala_redis.workers.status import main as status_command
from impala_redis.workers.train import main as train_command
from support import Program, Programs, eventually

pytestmark = pytest.mark.processes

INTERVAL = 10_000
ENDLESS = (
    *("--preset", "cartpole", "--total-frames", "500_000_000", "--stop-at-return", "none"),
    *("--learning-rate-schedule", "constant", "--population-interval", str(INTERVAL)),
)


def start(programs: Programs, url: str, run: str, population: str, *options: str) -> Program:
    """A learner with an actor, by one command."""
    where = ("--redis-url", url, "--run", run, "--run-dir", run, "--num-actors", "1")
    return programs.start("impala-train", *ENDLESS, *where, "--population", population, *options)


def table(programs: Programs, url: str, population: str) -> dict[str, Any]:
    """What impala-status gives of the population; empty while nobody is there."""
    command = ("impala-status", "--population", population, "--redis-url", url)
    code, output = programs.run(*command, "--json")
    if code == 14:
        assert "there is no member of a population" in output
        return {}
    assert code == 0, output
    found: dict[str, Any] = json.loads(output)
    return found


def records(folder: Path) -> list[dict[str, Any]]:
    """Those that are complete."""
    whole, _, _ = (folder / "metrics.jsonl").read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def test_a_member_that_learns_nothing_copies_one_that_does_and_goes_on_when_it_is_resumed(
    programs: Programs, redis_url: str, run_name: str, raw: redis.Redis
) -> None:
    # given two members, of which one has a rate that teaches nothing
    assert table(programs, redis_url, run_name) == {}
    good = start(programs, redis_url, f"{run_name}-g", run_name)
    bad = start(programs, redis_url, f"{run_name}-b", run_name, "--learning-rate", "1e-9")

    # when they have trained for a while, then it has copied the other one
    lineage = f"impala-population:{{{run_name}}}:lineage"
    eventually(lambda: raw.llen(lineage), what="a copy")
    copy = json.loads(raw.lrange(lineage, -1, -1)[0])
    assert (copy["member"], copy["copied_from"]) == (f"{run_name}-b", f"{run_name}-g")
    assert copy["their_fitness"] > copy["fitness"]
    assert copy["values"]["learning_rate"] > 1e-4

    # and impala-status shows both, and where one of them has its state from
    members = {one["name"]: one for one in table(programs, redis_url, run_name)["members"]}
    assert members[f"{run_name}-b"]["copied_from"] == f"{run_name}-g"
    assert members.keys() == {f"{run_name}-b", f"{run_name}-g"}
    code, output = programs.run("impala-status", "--population", run_name, "--redis-url", redis_url)
    assert code == 0
    assert f"population {run_name}: 2 members, 2 alive" in output

    # when it is stopped and resumed
    for program in (bad, good):
        program.send(signal.SIGTERM)
    assert (bad.code(), good.code()) == (130, 130), bad.output + good.output
    folder = programs.folder / f"{run_name}-b"
    saved = checkpoint.load(folder).facts["evolved"]
    resumed = start(programs, redis_url, f"{run_name}-b", run_name, "--resume")
    before = len(records(folder))
    eventually(lambda: len(records(folder)) > before + 1, what="a record")
    resumed.send(signal.SIGTERM)
    assert resumed.code() == 130, resumed.output

    # then it goes on with the settings that it had, and config.toml stays as it was typed
    first = records(folder)[before]
    assert first["population:generation"] == saved["generation"] >= 1
    assert first["population:learning_rate"] == saved["values"]["learning_rate"]
    assert "learning_rate = 1e-09" in (folder / "config.toml").read_text()


@pytest.mark.fault(67)
def test_states_that_are_none_are_refused_and_training_goes_on(
    programs: Programs, redis_url: str, run_name: str, raw: redis.Redis
) -> None:
    # given a member, and another one that somebody has made up from its record
    member = start(programs, redis_url, f"{run_name}-a", run_name)
    members = f"impala-population:{{{run_name}}}:members"
    state = f"impala-population:{{{run_name}}}:state"
    eventually(lambda: raw.hget(members, f"{run_name}-a"), what="a record")
    record = json.loads(raw.hget(members, f"{run_name}-a") or b"")
    forged = json.dumps({**record, "name": "evil", "fitness": 1e9, "fresh_s": 9e5})
    raw.hset(members, "evil", forged)
    raw.hset(f"{state}:evil", mapping={"record": forged, "payload": b"no state"})

    # when the next intervals come, then it is refused and counted, and training goes on
    path = programs.folder / f"{run_name}-a"

    def refused() -> bool:
        return any(record.get("population:refused", 0) >= 2 for record in records(path))

    eventually(refused, what="two refusals")
    assert raw.llen(f"impala-population:{{{run_name}}}:lineage") == 0
    member.send(signal.SIGTERM)
    assert member.code() == 130, member.output
    assert "REFUSED what a member" in (path / "logs" / "learner.log").read_text()


def test_a_member_tells_itself_again_where_the_server_has_lost_everything(
    programs: Programs, tmp_path: Path
) -> None:
    # given a member of its own server
    with OwnServer(tmp_path) as server:
        member = start(programs, server.url, "a", "pop")
        with server.client() as client:
            key = "impala-population:{pop}:members"
            eventually(lambda: client.hget(key, "a"), what="a record")

            # when the server has lost everything
            client.flushall()

            # then the member tells itself again
            eventually(lambda: client.hget(key, "a"), what="another record")
        member.send(signal.SIGTERM)
        assert member.code() == 130, member.output


@pytest.mark.parametrize(
    ("program", "options", "sentence"),
    [
        (train_command, ("--population", "a"), "meet on one server"),
        (train_command, ("--population", "a b"), "cannot name a population"),
        (train_command, ("--population-interval", "0"), "0 is not in the range"),
        (train_command, ("--population-interval", "9"), "is for members: give --population, too"),
        (status_command, ("--population", "a b"), "cannot name a population"),
        (status_command, ("--population", "a", "--watch"), "leave out --watch"),
        (status_command, ("--population", "a", "--run", "b"), "leave out --watch"),
    ],
    ids=["no other", "no name", "no interval", "alone", "no name to show", "watched", "of a run"],
)
def test_what_makes_no_sense_ends_with_a_sentence(
    program: click.Command,
    options: tuple[str, ...],
    sentence: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = CliRunner().invoke(program, options)
    assert result.exit_code == 2
    assert sentence in " ".join((result.output + caplog.text).split())
