"""The programs as a user starts them: real processes, a real server, real signals."""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import redis
from full import in_full

from chaos.servers import OpenServer, OwnServer, free_port
from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.records import checkpoint
from impala_redis.common.transport.monitor import MonitorLink, residual
from support import (
    ROOT,
    Program,
    Programs,
    eventually,
    is_running,
    pressed_again_and_again,
)

pytestmark = pytest.mark.processes

# Small enough to be over at once, with everything in it that a long run has.
SHORT = ("--preset", "cartpole", "--total-frames", "30000")
ENDLESS = (
    *("--preset", "cartpole", "--total-frames", "500_000_000", "--stop-at-return", "none"),
    *("--batch-size", "32", "--queue-blocks", "4"),
)

RESULT_KEYS = {
    "status",
    "frames",
    "updates",
    "episodes",
    "mean_return_100",
    "wall_s",
    "learner_s",
    "frames_per_s",
    "seed",
    "preset",
    "versions",
}


def books(url: str, run: str) -> dict[str, Any]:
    link = MonitorLink(url, run, "test")
    try:
        return link.read_books()
    finally:
        link.close()


def weights_version(raw: redis.Redis, run: str) -> int:
    version = raw.hget(f"impala:{{{run}}}:weights", "version")
    return -1 if version is None else int(version)


def children_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_one_command_solves_cartpole_and_leaves_nothing_running(programs: Programs) -> None:
    # given no server and no settings
    train = programs.start("impala-train", "--preset", "cartpole", "--run-dir", "run", cold=True)
    eventually(lambda: len(children_of(train.pid)) >= 3, what="server, learner, actor")
    family = children_of(train.pid)

    # when it has run to its end
    code = train.code()

    # then it is solved, the run directory holds all that is promised, and every process is gone
    assert code == 0, train.output
    assert "Traceback" not in train.output
    run = programs.folder / "run"
    result = json.loads((run / "result.json").read_text())
    assert set(result) == RESULT_KEYS
    assert result["status"] == "solved"
    assert result["mean_return_100"] >= 475
    assert result["preset"] == "cartpole"
    assert (run / "config.toml").exists()
    assert list(run.glob("events.out.tfevents.*"))
    assert list((run / "checkpoints").glob("checkpoint-*.safetensors"))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["frames"] == result["frames"]
    assert not [pid for pid in family if is_running(pid)]

    # and its checkpoint plays well
    code, output = programs.run("impala-eval", "--checkpoint", "run", "--json")
    assert code == 0, output
    evaluation = json.loads(output)
    assert evaluation["episodes"] == 20
    assert evaluation["mean_return"] >= 400

    # and a finished run is not overwritten
    code, output = programs.run("impala-train", "--run-dir", "run")
    assert code == 10
    assert "already holds a run (solved)" in output


@pytest.mark.parametrize(
    "options",
    [
        ("--max-policy-lag", "0"),
        ("--max-policy-lag", "20", "--publish-interval-s", "1"),
        ("--max-policy-lag", "6", "--force-lag", "5"),
    ],
    ids=" ".join,
)
def test_a_bound_on_lag_never_stops_the_training(
    programs: Programs, options: tuple[str, ...]
) -> None:
    command = ("impala-train", *SHORT, "--run-dir", "run", *options)
    code, output = programs.run(*command)
    assert code == 0, output
    result = json.loads((programs.folder / "run" / "result.json").read_text())
    assert (result["status"], result["frames"] >= 30_000) == ("finished", True)


def test_nothing_outlives_a_killed_train(programs: Programs) -> None:
    # given a training under way
    train = programs.start("impala-train", *ENDLESS, "--run-dir", "run")
    train.says("frames")
    family = children_of(train.pid)
    assert len(family) >= 3

    # when it is killed
    train.send(signal.SIGKILL)

    # then server, learner and actor end by themselves
    eventually(lambda: not [pid for pid in family if is_running(pid)], what="the family to end")


def test_a_train_whose_server_dies_says_so_and_ends(programs: Programs) -> None:
    # given a training under way
    train = programs.start("impala-train", *ENDLESS, "--run-dir", "run")
    train.says("frames")
    (server,) = (
        pid
        for pid in children_of(train.pid)
        if b"unixsocket" in Path(f"/proc/{pid}/cmdline").read_bytes()
        or b"-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )

    # when its embedded server is killed
    os.kill(server, signal.SIGKILL)

    # then it ends, with its own code and the way to go on
    assert train.code() == 13
    assert "the embedded server ended" in train.output
    assert "--resume" in train.output


def test_one_directory_takes_one_train_at_a_time(programs: Programs) -> None:
    # given a training that has only just begun
    first = programs.start("impala-train", *ENDLESS, "--run-dir", "run")
    first.says("the queue")

    # when a second one is started there
    code, output = programs.run("impala-train", *ENDLESS, "--run-dir", "run", "--resume")

    # then it is refused, and the first one goes on
    assert code == 10
    assert "another train works in run now" in output
    first.says("frames")


def test_a_train_stopped_before_its_learner_is_up_was_interrupted(programs: Programs) -> None:
    train = programs.start("impala-train", *ENDLESS, "--run-dir", "run")
    train.says("the queue")
    train.send(signal.SIGTERM)
    assert train.code(timeout_s=15) == 130
    assert "killed" not in train.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_stopped_train_can_be_resumed(programs: Programs, number: signal.Signals) -> None:
    # given a training under way
    train = programs.start("impala-train", *ENDLESS, "--run-dir", "run")
    train.says("frames")

    # when it is stopped
    train.send(number)

    # then it ends soon, says how to go on, and going on continues the count
    assert train.code(timeout_s=15) == 130
    assert "impala-train --resume --run-dir run\n" in train.output
    before = json.loads((programs.folder / "run" / "result.json").read_text())
    assert before["status"] == "interrupted"
    goal = before["frames"] + 20_000
    code, output = programs.run(
        "impala-train", "--resume", "--run-dir", "run", "--total-frames", str(goal)
    )
    assert code == 0, output
    after = json.loads((programs.folder / "run" / "result.json").read_text())
    assert after["status"] == "finished"
    assert after["frames"] >= goal
    assert after["updates"] > before["updates"]


def test_a_second_ctrl_c_ends_a_train_at_once_whatever_its_learner_does(
    programs: Programs,
) -> None:
    # given a training whose learner hangs, and one Ctrl-C that it does not follow
    train = programs.start("impala-train", *ENDLESS, "--run-dir", "run")
    train.says("frames")
    family = children_of(train.pid)
    (learner,) = (
        pid for pid in family if b"impala-learner" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(learner, signal.SIGSTOP)
    train.send(signal.SIGINT)
    train.says("Ctrl-C again ends at once")

    # when
    eventually(pressed_again_and_again(train))

    # then it has ended, with all its programs, and says how to go on
    assert train.code(timeout_s=5) == 130
    assert "ended at once; continue with --resume --run-dir run\n" in train.output
    eventually(lambda: not [pid for pid in family if is_running(pid)], what="the family to end")


def test_a_killed_learner_is_resumed_and_the_books_balance(
    programs: Programs, redis_url: str, run_name: str, raw: redis.Redis
) -> None:
    # given a learner and two actors at work, with a checkpoint behind them
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    options = ("impala-learner", *ENDLESS, "--run-dir", "run", "--checkpoint-interval-s", "0.2")
    learner = programs.start(*options, **variables)
    actors = [programs.start("impala-actor", **variables) for _ in range(2)]
    checkpoints = programs.folder / "run" / "checkpoints"
    eventually(lambda: len(list(checkpoints.glob("*.json"))) >= 2, what="a checkpoint")

    # when the learner is killed
    learner.send(signal.SIGKILL)
    learner.code()
    version = weights_version(raw, run_name)
    produced = books(redis_url, run_name)["produced"]

    # then impala-status says so at once, and not that the learner is too slow
    code, output = programs.run("impala-status", **variables)
    verdict = f"the learner {socket.gethostname()}:{learner.pid} has ended without giving its lease"
    assert (code, f"verdict  {verdict} back; to go on, start one with" in output) == (0, True), (
        output
    )

    # and the actors go on producing without it
    eventually(lambda: books(redis_url, run_name)["produced"] > produced + 20)

    # and a new learner goes on from the checkpoint, with newer versions only
    again = programs.start(*options, "--resume", **variables)
    again.says("resumed from")

    # in a part of the run that is told from others of the same checkpoint, so that actors play new
    # episodes in it
    again.says("ready")
    assert checkpoint.load(programs.folder / "run").resumes == 1
    assert json.loads(raw.hget(f"impala:{{{run_name}}}:spec", "json"))["resumes"] == 1  # type: ignore[arg-type]
    versions = [version]
    consumed = books(redis_url, run_name)["consumed"]

    def trained_more() -> bool:
        versions.append(weights_version(raw, run_name))
        return bool(books(redis_url, run_name)["consumed"] > consumed + 100)

    eventually(trained_more, what="more training")
    assert versions == sorted(versions)
    assert versions[-1] > version

    # and every block is accounted for, at any moment and at the end
    assert residual(books(redis_url, run_name)) == 0
    again.send(signal.SIGTERM)
    assert again.code() == 130
    for actor in actors:
        actor.send(signal.SIGTERM)
        assert actor.code() == 0
        assert "Traceback" not in actor.output
    ended = books(redis_url, run_name)
    assert residual(ended) == 0
    assert ended["foreign"] == 0
    assert ended["abandoned"] > 0


def test_a_wipe_before_the_first_update_is_repaired(
    programs: Programs, redis_url: str, run_name: str, raw: redis.Redis
) -> None:
    # given a learner that waits for its first batch
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    learner = programs.start("impala-learner", *SHORT, "--run-dir", "run", **variables)
    learner.says("ready")

    # when the server loses everything of the run
    raw.delete(*raw.keys(f"impala:{{{run_name}}}:*"))
    learner.says("OPENING THE RUN AGAIN")

    # then an actor that comes finds spec and weights, and the run is finished
    programs.start("impala-actor", **variables)
    assert learner.code() == 0, learner.output
    assert residual(books(redis_url, run_name)) == 0


def test_a_waiting_actor_survives_a_restart_of_the_server(
    programs: Programs, own_server: OwnServer
) -> None:
    # given an actor that waits for a learner
    actor = programs.start("impala-actor", "--run", "x", "--redis-url", own_server.url)
    actor.says("waiting: no learner")

    # when the server is away for a while
    own_server.restart()

    # then it has stayed, and joins the run that is opened then
    learner = ("impala-learner", *SHORT, "--run", "x", "--redis-url", own_server.url)
    assert programs.run(*learner)[0] == 0
    assert actor.process.poll() is None
    assert "joined x" in actor.output


def test_a_bounded_wait_ends_with_its_own_code(programs: Programs, redis_url: str) -> None:
    code, output = programs.run(
        *("impala-actor", "--run", "nobody", "--wait-learner-s", "0"), IMPALA_REDIS_URL=redis_url
    )
    assert code == 12
    assert "no learner has opened the run 'nobody'" in output


def test_a_checkpoint_is_evaluated_whatever_run_is_set_in_the_environment(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    programs.start("impala-actor", **variables)
    assert programs.run("impala-learner", *SHORT, "--run-dir", "run", **variables)[0] == 0
    code, output = programs.run("impala-eval", "--checkpoint", "run", **variables)
    assert code == 0, output


def test_a_damaged_config_of_a_run_gets_a_sentence(programs: Programs) -> None:
    for text in ("run = 3\n", "[run\n", "env = 3\n", "[run]\nname = 5\n"):
        (programs.folder / "run").mkdir(exist_ok=True)
        (programs.folder / "run" / "config.toml").write_text(text)
        code, output = programs.run("impala-learner", "--resume", "--run-dir", "run")
        assert code == 2, output
        assert "Traceback" not in output


@pytest.mark.fault(48)
def test_a_frozen_server_does_not_keep_programs_from_ending(
    programs: Programs, tmp_path: Path
) -> None:
    # given a learner and an actor at work, and a server that stops answering
    with EmbeddedServer(tmp_path) as server:
        variables = {"IMPALA_REDIS_URL": server.url, "IMPALA_RUN": "frozen"}
        learner = programs.start("impala-learner", *ENDLESS, "--run-dir", "run", **variables)
        actor = programs.start("impala-actor", **variables)
        learner.says("first batch is here")
        raw = redis.Redis.from_url(server.url)
        server_pid = raw.info("server")["process_id"]
        raw.close()
        os.kill(server_pid, signal.SIGSTOP)
        try:
            # when both are asked to stop
            learner.send(signal.SIGTERM)
            actor.send(signal.SIGTERM)

            # then they do, with the exit codes of a clean stop and a checkpoint on disk
            assert actor.code(timeout_s=8) == 0
            assert learner.code(timeout_s=12) == 130
        finally:
            os.kill(server_pid, signal.SIGCONT)
    result = json.loads((programs.folder / "run" / "result.json").read_text())
    assert result["status"] == "interrupted"


def test_a_killed_actor_stalls_nothing(programs: Programs, redis_url: str, run_name: str) -> None:
    # given a learner and two actors at work
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    learner = programs.start("impala-learner", *ENDLESS, "--run-dir", "run", **variables)
    first, second = (programs.start("impala-actor", **variables) for _ in range(2))
    first.says("joined")
    second.says("joined")

    # when one is killed
    first.send(signal.SIGKILL)
    first.code()
    consumed = books(redis_url, run_name)["consumed"]

    # then training goes on with the other, and nothing is unexplained
    eventually(lambda: books(redis_url, run_name)["consumed"] > consumed + 100)
    assert residual(books(redis_url, run_name)) == 0
    assert learner.process.poll() is None


def test_garbage_on_the_list_is_buried_and_training_goes_on(
    programs: Programs, redis_url: str, run_name: str, raw: redis.Redis
) -> None:
    # given a learner at work
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    learner = programs.start("impala-learner", *ENDLESS, "--run-dir", "run", **variables)
    programs.start("impala-actor", **variables)
    learner.says("first batch is here")

    # when garbage is pushed by hand, until some of it is claimed before the bound drops it
    pushed = itertools.count()

    def some_is_buried() -> bool:
        raw.rpush(f"impala:{{{run_name}}}:trajectories", (b"garbage", b"")[next(pushed) % 2])
        return bool(raw.llen(f"impala:{{{run_name}}}:dead"))

    eventually(some_is_buried)

    # then it is in the dead letters with a reason and in the books, and training goes on
    consumed = books(redis_url, run_name)["consumed"]
    eventually(lambda: books(redis_url, run_name)["consumed"] > consumed + 50)
    now = books(redis_url, run_name)
    assert residual(now) == 0
    assert now["foreign"] == next(pushed)
    assert now["dead_lettered"] == now["dead_lettered:malformed"] >= 1
    assert learner.process.poll() is None


def test_a_second_learner_is_refused_and_told_who_holds_the_run(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # given a learner that holds the run
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    first = programs.start("impala-learner", *ENDLESS, "--run-dir", "run", **variables)
    first.says("ready")

    # when a second one is started for it
    code, output = programs.run("impala-learner", *SHORT, "--run-dir", "other", **variables)

    # then it is refused, by name, and the first one is undisturbed
    assert code == 7
    assert f"{socket.gethostname()}:{first.pid}" in output
    assert "Traceback" not in output
    assert first.process.poll() is None

    # and when it insists, it gets the run and the first one ends with its own code
    second = programs.start(
        "impala-learner", *ENDLESS, "--run-dir", "other", "--take-over", **variables
    )
    second.says("ready")
    assert first.code() == 8
    assert "another learner took this run over" in first.output


def test_an_actor_waits_for_the_next_run_when_one_is_finished(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # given an actor whose run has finished
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    actor = programs.start("impala-actor", **variables)
    assert programs.run("impala-learner", *SHORT, "--run-dir", "one", **variables)[0] == 0
    actor.says("waiting: the run")

    # when a learner opens the run again, of another unroll length
    code, output = programs.run(
        "impala-learner", *SHORT, "--unroll-length", "10", "--run-dir", "two", **variables
    )

    # then the same actor has served it
    assert code == 0, output
    assert actor.output.count("joined") == 2


def test_an_actor_may_end_with_the_run_that_it_joined(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # given an actor that shall, started first, and one that shall not
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    leaves = programs.start("impala-actor", "--exit-with-run", **variables)
    waits = programs.start("impala-actor", **variables)

    # when its learner is interrupted, then the run is not over: the actor plays on
    learner = programs.start("impala-learner", *ENDLESS, "--run-dir", "run", **variables)
    leaves.says("joined")
    learner.says("first batch is here")
    learner.send(signal.SIGTERM)
    assert learner.code() == 130
    assert leaves.process.poll() is None

    # when another learner finishes it
    learner = programs.start(
        *("impala-learner", "--resume", "--run-dir", "run", "--total-frames", "1"), **variables
    )
    assert learner.code() == 0, learner.output

    # then it ends, and the other one waits for the next run
    assert leaves.code() == 0, leaves.output
    waits.says(f"waiting: the run '{run_name}' is finished")
    assert waits.process.poll() is None


def test_an_actor_without_a_learner_pauses_or_ends_as_it_was_told(
    programs: Programs, redis_url: str, run_name: str, raw: redis.Redis
) -> None:
    # given a learner, and actors that will not play for long without
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    resumed = ("impala-learner", "--run-dir", "run", "--resume", *ENDLESS)
    learner = programs.start(*resumed, **variables)
    command = ("impala-actor", "--max-learner-away-s", "1.5")
    pauses = programs.start(*command, "--actor-id", "pauses", **variables)
    ends = programs.start(*command, "--when-learner-away", "end", **variables)
    learner.says("first batch is here")
    for actor in (pauses, ends):
        actor.says("joined")

    # when the learner is killed
    learner.send(signal.SIGKILL)

    # then one ends with the code of a wait that was too long
    assert ends.code() == 12, ends.output
    assert "--max-learner-away-s is over" in ends.output
    assert "Traceback" not in ends.output

    # and the other one stands still, and says so
    pauses.says("paused: no learner has held the run")
    key = f"impala:{{{run_name}}}:actor:pauses"
    eventually(lambda: raw.hget(key, "frames_per_s") == b"0")
    frames = int(raw.hget(key, "frames") or 0)

    # until a learner is back
    assert int(raw.hget(key, "frames") or 0) == frames > 0
    programs.start(*resumed, "--take-over", **variables).says("first batch is here")
    eventually(lambda: raw.hget(key, "frames_per_s") not in (None, b"0"))
    pauses.send(signal.SIGTERM)
    assert pauses.code() == 0


def test_a_resume_with_another_network_is_refused(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # given a finished run
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    programs.start("impala-actor", **variables)
    assert programs.run("impala-learner", *SHORT, "--run-dir", "run", **variables)[0] == 0

    # when it is resumed with another network
    code, output = programs.run(
        "impala-learner", "--resume", "--run-dir", "run", "--hidden-sizes", "32", **variables
    )

    # then it says what differs
    assert code == 9
    assert "hidden_sizes is (32,) here and (64, 64) there" in output


def test_eval_and_status_read_a_live_run(programs: Programs, redis_url: str, run_name: str) -> None:
    # given a run at work
    variables = {"IMPALA_REDIS_URL": redis_url, "IMPALA_RUN": run_name}
    learner = programs.start("impala-learner", *ENDLESS, "--run-dir", "run", **variables)
    programs.start("impala-actor", "--actor-id", "left", **variables)
    programs.start("impala-actor", "--actor-id", "right", **variables)
    learner.says("first batch is here")
    eventually(lambda: books(redis_url, run_name)["consumed"] > 50)

    # when it is evaluated, greedily and not
    greedy = programs.run("impala-eval", "--json", cold=True, **variables)
    sampled = programs.run("impala-eval", "--sampled", "--episodes", "5", **variables)

    # then both answer
    assert greedy[0] == 0, greedy[1]
    assert json.loads(greedy[1])["weights_version"] > 0
    assert sampled[0] == 0, sampled[1]
    assert "5 episodes, sampled" in sampled[1]

    # and the status shows who works on what
    code, output = programs.run("impala-status", "--json", **variables)
    assert code == 0, output
    status = json.loads(output)
    assert set(status["actors"]) == {"left", "right"}
    assert status["residual"] == 0
    assert status["learner"]["holder"].startswith(f"{socket.gethostname()}:{learner.pid}")
    assert status["blocks_per_s"]["consumed"] > 0
    code, output = programs.run("impala-status", **variables)
    assert code == 0
    for word in ("queue", "policy lag", "version", "frames/s", "left", "right", "produced"):
        assert word in output


ORDERS = ["-".join(order) for order in itertools.permutations(["redis", "learner", "actor"])]


@pytest.mark.skipif(
    not (shutil.which("redis-server") and shutil.which("redis-cli")),
    reason="needs redis-server and redis-cli (apt install redis-server)",
)
@pytest.mark.parametrize("num_actors", [1, *in_full(4)])
@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[-1], *in_full(*ORDERS[1:-1])])
def test_the_readmes_terminals_work_in_any_order(
    programs: Programs, order: str, num_actors: int, tmp_path: Path
) -> None:
    # given the commands of the README, on a port of the test's own
    readme = (ROOT / "README.md").read_text()
    commands = {
        name: re.search(rf"^\$ ({name}\b.*)$", readme, re.MULTILINE).group(1)  # type: ignore[union-attr]
        for name in ("redis-server", "impala-learner", "impala-actor", "redis-cli LLEN")
    }
    port = free_port()
    variables = {"IMPALA_REDIS_URL": f"redis://localhost:{port}/0"}

    # (one of each is typed into a shell; many start warm, or they would take most of the time)
    def typed(line: str) -> Program:
        if num_actors == 1:
            return programs.shell(line, **variables)
        return programs.start(*shlex.split(line), **variables)

    # when they are started in this order, each once the one before is up
    terminals: dict[str, list[Program]] = {}
    for name in order.split("-"):
        if name == "redis":
            server = commands["redis-server"] + f" --port {port} --dir {tmp_path}"
            terminals[name] = [programs.shell(server)]
            terminals[name][0].says("Ready to accept connections")
        else:
            count = num_actors if name == "actor" else 1
            command = commands[f"impala-{name}"]
            if name == "learner":
                command += " --stop-at-return none"  # or it could be over before all have joined
            terminals[name] = [typed(command) for _ in range(count)]
            if "redis" not in terminals:
                terminals[name][0].says("trying for")

    # then every actor joins, the learner learns, redis-cli shows the queue, and all end cleanly
    (learner,) = terminals["learner"]
    learner.says("first batch is here")
    for actor in terminals["actor"]:
        actor.says("joined")
    look = programs.shell(commands["redis-cli LLEN"].replace("redis-cli", f"redis-cli -p {port}"))
    assert look.code() == 0
    assert 0 <= int(look.output) <= 4
    for actor in terminals["actor"]:
        actor.send(signal.SIGTERM)
        assert actor.code() == 0, actor.output
    learner.send(signal.SIGTERM)
    assert learner.code() == 130, learner.output
    assert "Traceback" not in "".join(p.output for ps in terminals.values() for p in ps)


@pytest.mark.parametrize("name", ["hallway.py", "wide.py"])
def test_what_the_readme_writes_of_ones_own_is_trained_with(programs: Programs, name: str) -> None:
    # given the README's file, as it stands
    readme = (ROOT / "README.md").read_text()
    found = re.search(rf"into `{name}`:\n\n```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert found is not None
    (programs.folder / name).write_text(found.group(1))

    # when the command below it is typed
    module = name.removesuffix(".py")
    command = re.search(rf"^\$ (impala-train .*{module}:.*)$", readme, re.MULTILINE)
    assert command is not None
    train = programs.shell(command.group(1))

    # then the task is solved
    assert train.code() == 0, train.output
    assert "solved: mean return" in train.output


BAD_INPUT = {
    "unknown preset": (("impala-train", "--preset", "cartpol"), 2, "there are: acrobot, atari"),
    "unknown option": (("impala-train", "--learning-rat", "1"), 2, "--learning-rate"),
    "unknown environment": (("impala-train", "--env", "Nope-v1"), 3, "no environment 'Nope-v1'"),
    "environment without its package": (
        ("impala-train", "--env", "nopackage:Nope-v1"),
        3,
        "nopackage",
    ),
    "no picture": (("impala-train", *SHORT, "--network", "shallow"), 2, "use --network mlp"),
    "no such game": (("impala-train", "--env", "ALE/Pang-v5"), 3, "nearest is ALE/Pong-v5"),
    "value out of range": (("impala-learner", *SHORT, "--discounting", "1.5"), 2, "at most 1"),
    "value of the wrong kind": (("impala-train", "--batch-size", "many"), 2, "a whole number"),
    "clips that contradict": (
        ("impala-learner", *SHORT, "--clip-rho", "0.5"),
        2,
        "must be at least clip_c",
    ),
    "missing config file": (("impala-learner", "--config", "no.toml"), 2, "no.toml"),
    "no environment named": (("impala-learner", "--run", "x"), 2, "--preset NAME or --env ID"),
    "bad actor name": (("impala-actor", "--run", "x", "--actor-id", "a b"), 2, "name an actor"),
    "bad run name": (("impala-actor", "--run", "a/b"), 2, "cannot name a run"),
    "no run named": (("impala-actor",), 2, "--run"),
    "unreachable redis, train": (
        ("impala-train", "--redis-url", "redis://localhost:1/0"),
        4,
        "Connection refused",
    ),
    "unreachable redis, learner": (
        ("impala-learner", *SHORT, "--redis-url", "redis://localhost:1/0", "--wait-redis-s", "0"),
        4,
        "redis-server",
    ),
    "unreachable redis, actor": (
        (
            "impala-actor",
            "--run",
            "x",
            "--redis-url",
            "redis://localhost:1/0",
            "--wait-redis-s",
            "0.2",
        ),
        4,
        "--redis-url",
    ),
    "unreachable redis, status": (
        ("impala-status", "--run", "x", "--redis-url", "redis://localhost:1/0"),
        4,
        "--redis-url",
    ),
    "not a redis url": (
        ("impala-status", "--run", "x", "--redis-url", "http://localhost"),
        4,
        "not a Redis URL",
    ),
    "nothing to evaluate": (("impala-eval",), 2, "--checkpoint PATH"),
    "missing checkpoint": (("impala-eval", "--checkpoint", "nowhere"), 11, "nowhere"),
    "unwritable run directory": (
        ("impala-train", "--run-dir", "/proc/run"),
        10,
        "cannot be written",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT, ids=[name.replace(" ", "-") for name in BAD_INPUT])
def test_bad_input_gets_one_sentence_and_its_exit_code(programs: Programs, case: str) -> None:
    command, expected_code, sentence = BAD_INPUT[case]
    code, output = programs.run(*command)
    assert code == expected_code, output
    assert sentence in output
    assert "Traceback" not in output


def test_an_unknown_key_in_a_config_file_is_named(programs: Programs) -> None:
    (programs.folder / "c.toml").write_text('env = "CartPole-v1"\nlearning_rat = 1.0\n')
    code, output = programs.run("impala-learner", "--config", "c.toml")
    assert code == 2
    assert "did you mean learning_rate?" in output


def test_no_password_is_ever_printed(programs: Programs, tmp_path: Path) -> None:
    # given a server with a password
    with OpenServer(tmp_path) as server:
        client = redis.Redis.from_url(server.url)
        client.config_set("requirepass", "the-secret")
        client.close()
        right = f"redis://:the-secret@127.0.0.1:{server.port}/0"
        wrong = f"redis://:not-the-secret@127.0.0.1:{server.port}/0"

        # when each program is given a wrong one, or none
        for url in (wrong, server.tcp_url):
            for command in (
                ("impala-learner", *SHORT),
                ("impala-actor", "--run", "x"),
                ("impala-status", "--run", "x"),
                ("impala-eval", "--run", "x"),
                ("impala-train", "--run-dir", "t"),
            ):
                code, output = programs.run(*command, IMPALA_REDIS_URL=url)

                # then it says so at once, and prints no secret
                assert code == 5, output
                assert "secret" not in output

        # and with the right one the training works, with nothing to read in the arguments
        train = programs.start("impala-train", *SHORT, "--run-dir", "run", IMPALA_REDIS_URL=right)
        eventually(lambda: len(children_of(train.pid)) >= 2)
        for pid in [train.pid, *children_of(train.pid)]:
            assert b"the-secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert train.code() == 0, train.output
        logs = "".join(p.read_text() for p in (programs.folder / "run" / "logs").iterdir())
        assert "the-secret" not in train.output + logs
