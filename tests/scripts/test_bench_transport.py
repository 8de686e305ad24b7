"""The load benchmark's own promises: every figure is there, it sends what actors send, it ends."""

import asyncio
import importlib
import json
import math
import os
import re
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from chaos.servers import OwnServer
from impala_redis.common.local.server_program import find_server
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.ledger import Settled
from impala_redis.common.transport.monitor import MonitorLink
from support import ROOT, Program, eventually, is_running


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module


def bench(log: Path, *options: str) -> Program:
    command = [sys.executable, str(ROOT / "scripts/bench_transport.py"), "--json", *options]
    return Program(command, dict(os.environ), ROOT, log)


def is_of_redis_benchmark(figure: str) -> bool:
    return figure.endswith("share") or "_benchmark_" in figure


def family_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.processes
def test_every_part_gives_every_figure(scripts: Any, tmp_path: Path) -> None:
    # when all parts run with tiny loads
    program = bench(tmp_path / "log", "--seconds", "0.2", "--load", "0.01")
    code = program.code()

    # then the last line is JSON with the figure of every target, all of them numbers
    assert code == 0, program.output
    assert "Traceback" not in program.output
    document = json.loads(program.output.splitlines()[-1])
    parts, moved = scripts("bench_transport").PARTS, scripts("bench.transport.moved")
    wanted = {(name, target.figure) for name, part in parts.items() for target in part.targets}
    grids = {name: part.grid for name, part in parts.items() if part.grid}
    cells = {
        (name, f"{row}_{column}")
        for name, grid in grids.items()
        for row in grid.rows
        for column in grid.columns
    }
    if moved.benchmark_program() is None:
        wanted = {(name, figure) for name, figure in wanted if not figure.endswith("share")}
        cells = {(name, figure) for name, figure in cells if not is_of_redis_benchmark(figure)}
    assert {(row["part"], row["figure"]) for row in document["targets"]} == wanted
    assert cells <= {(name, figure) for name in parts for figure in document["figures"][name]}
    for part, figures in document["figures"].items():
        for name, values in figures.items():
            assert len(values) == 1 and math.isfinite(values[0]), (part, name, values)
    assert document["about"].keys() >= {"cores", "server", "redis_py", "python", "scale", "load"}

    # and what must be exact under any load is exact
    exact = {name for _, name in wanted if name in ("residual", "unexplained")}
    assert exact == {"residual", "unexplained"}
    assert all(row["met"] for row in document["targets"] if row["figure"] in exact)


def test_the_swarm_sends_what_a_real_actor_sends(scripts: Any, own_server: OwnServer) -> None:
    # given a run, and someone who sees every command
    load: ModuleType = scripts("bench.load.roles")
    spec = load.spec_of((4,), "float32", envs=2, queue_blocks=4)
    learner = LearnerLink(own_server.url, load.RUN, "test", lease_s=60.0)
    learner.open()
    learner.announce(spec.to_json(), spec.fingerprint, "running")
    message = load.message_of(spec)
    with own_server.client() as client, client.monitor() as monitor:
        # when a real actor pushes and beats, and then one of the swarm
        real = ActorLink(own_server.url, load.RUN, "a")
        real.push("a#1", 1, message, spec.queue_blocks)
        real.beat("a", load.FIGURES, 10.0)
        real.read_news()
        real.close()
        learner.client.echo("half")

        async def play() -> None:
            actor = scripts("bench.load.swarm").SwarmActor(own_server.url, spec, "a", message, 10.0)
            actor.sequence = 2
            await actor.push()
            await actor.beat()
            actor.hang_up()

        asyncio.run(play())
        learner.client.echo("end")
        commands = [""]
        while not commands[-1].startswith("ECHO end"):
            heard = monitor.next_command()
            if heard["client_type"] != "lua":
                commands.append(heard["command"])
    learner.close()

    # then both have said the same
    half = commands.index("ECHO half")
    said, repeated = commands[1:half], commands[half + 1 : -1]
    assert any(command.startswith("FCALL impala5_push_begin") for command in said)
    assert [re.sub(r" a#1 1\b", " a#1 2", command) for command in said] == repeated


@pytest.mark.processes
def test_without_redis_benchmark_its_share_is_left_out_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a machine that has the server and not its benchmark
    monkeypatch.setenv("IMPALA_REDIS_SERVER", str(find_server()))
    monkeypatch.setenv("PATH", str(tmp_path))

    # when one actor moves blocks to one learner
    program = bench(tmp_path / "log", "--only", "moved", "--seconds", "0.05")

    # then its own figures are there, and one sentence says which are not
    assert program.code() == 0, program.output
    figures = json.loads(program.output.splitlines()[-1])["figures"]["moved"]
    assert figures["64k_tcp_mb_per_s"][0] > 0 and figures["1m_unix_mb_per_s"][0] > 0
    assert not any(name.endswith("share") for name in figures)
    assert "redis-tools has the first" in program.output


def test_a_flood_pushes_each_block_once_and_fetches_weights_that_are_new(
    scripts: Any, own_server: OwnServer
) -> None:
    # given a run with weights, and two actors that flood it
    load, flood, crew = (
        scripts("bench.load.roles"),
        scripts("bench.load.flood"),
        scripts("bench.load.crew"),
    )
    spec = load.spec_of((4,), "float32", envs=2, queue_blocks=4)
    learner = LearnerLink(own_server.url, load.RUN, "test", lease_s=60.0)
    learner.open()
    learner.announce(spec.to_json(), spec.fingerprint, "running")
    learner.publish(1, b"some weights")
    signals = crew.Signals(threading.Barrier(2), threading.Event())
    with ThreadPoolExecutor() as pool:
        flooding = pool.submit(
            flood.flood, own_server.url, spec, signals, ["a", "b"], every_s=0.001, fetch=True
        )
        signals.begin.wait(10)

        # when another version is published meanwhile
        eventually(lambda: learner.read_flow()[0] > 10)
        learner.publish(2, b"x" * 3_000_000)
        eventually(lambda: learner.read_flow()[0] > 30)
        signals.end.set()
        figures = flooding.result(timeout=10)

    # then every push that was answered is in the books once, and each actor has fetched once
    books = MonitorLink(own_server.url, load.RUN, "test").read_books()
    assert books["produced"] == len(figures["push_ms"]) > 30
    assert books["dup_push"] == 0
    assert len(figures["fetch_ms"]) == 2

    # and the blocks are whole
    messages, _ = learner.settle_and_claim(Settled(), 4)
    assert messages == [load.message_of(spec)] * 4
    learner.close()


def test_the_end_of_an_answer_is_found_wherever_it_is_cut(scripts: Any) -> None:
    replies = b"+OK\r\n:1\r\n$-1\r\n*3\r\n$4\r\na\r\nb\r\n*0\r\n$0\r\n\r\n"
    for cut in range(1, len(replies)):
        answer = scripts("bench.load.flood").Answer()
        answer.begin(4)
        first, rest = bytearray(replies[:cut]), bytearray(replies[cut:])
        assert not answer.take(first, len(first))
        assert answer.take(rest, len(rest))
        assert answer.head == replies


@pytest.mark.processes
def test_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    # given a benchmark at work: a server, a learner and the swarm
    program = bench(tmp_path / "log", "--only", "L2", "--seconds", "60", "--load", "0.01")
    family = eventually(lambda: [*family_of(program.pid)] if is_up(program.pid) else [])

    # when it is interrupted
    program.send(signal.SIGINT)

    # then it says so, and nothing is left running
    assert program.code() == 130, program.output
    assert "Traceback" not in program.output
    assert json.loads(program.output.splitlines()[-1])["figures"] == {}
    eventually(lambda: not any(is_running(pid) for pid in family))


def is_up(pid: int) -> bool:
    return len(family_of(pid)) >= 3


def test_a_part_that_does_not_exist_is_refused(scripts: Any) -> None:
    done = CliRunner().invoke(scripts("bench_transport").main, ["--only", "L1,L9"])
    assert done.exit_code == 2
    assert "no part L9" in done.output
