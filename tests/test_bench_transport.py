"""The load benchmark's own promises: every figure is there, it sends what actors send, it ends."""

import asyncio
import importlib
import json
import math
import os
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from chaos.servers import OwnServer
from common.transport import ActorSide, LearnerSide
from support import Program, eventually, is_running

ROOT = Path(__file__).parents[1]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module


def bench(log: Path, *options: str) -> Program:
    command = [sys.executable, str(ROOT / "scripts/bench_transport.py"), "--json", *options]
    return Program(command, dict(os.environ), ROOT, log)


def family_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.processes
def test_every_part_gives_every_figure(scripts: Any, tmp_path: Path) -> None:
    # when all parts run with tiny loads
    program = bench(tmp_path / "log", "--seconds", "0.2", "--load", "0.01")
    code = program.code(timeout_s=110)

    # then the last line is JSON with the figure of every target, all of them numbers
    assert code == 0, program.output
    assert "Traceback" not in program.output
    document = json.loads(program.output.splitlines()[-1])
    parts = scripts("bench_transport").PARTS
    wanted = {(part, target.figure) for part, (_, targets) in parts.items() for target in targets}
    assert {(row["part"], row["figure"]) for row in document["targets"]} == wanted
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
    load: ModuleType = scripts("load")
    spec = load.spec_of((4,), "float32", envs=2, queue_blocks=4)
    learner = LearnerSide(own_server.url, load.RUN, "test", lease_s=60.0)
    learner.open()
    learner.announce(spec.to_json(), spec.fingerprint, "running")
    frame = load.frame_of(spec)
    with own_server.client() as client, client.monitor() as monitor:
        # when a real actor pushes and beats, and then one of the swarm
        real = ActorSide(own_server.url, load.RUN, "a")
        real.push("a#1", 1, frame, spec.queue_blocks)
        real.beat("a", load.FIGURES, 10.0)
        real.read_news()
        real.close()
        learner.client.echo("half")

        async def play() -> None:
            actor = scripts("swarm").SwarmActor(own_server.url, spec, "a", frame, 10.0)
            actor.sequence = 2
            await actor.push()
            await actor.beat()
            actor.hang_up()

        asyncio.run(play())
        learner.client.echo("end")
        commands = [""]
        while not commands[-1].startswith("ECHO end"):
            told = monitor.next_command()
            if told["client_type"] != "lua":
                commands.append(told["command"])
    learner.close()

    # then both have said the same
    half = commands.index("ECHO half")
    said, repeated = commands[1:half], commands[half + 1 : -1]
    assert any(command.startswith("FCALL impala1_push") for command in said)
    assert [command.replace(" a#1 1 ", " a#1 2 ") for command in said] == repeated


@pytest.mark.processes
def test_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    # given a benchmark at work: a server, a learner and the swarm
    program = bench(tmp_path / "log", "--only", "L2", "--seconds", "60", "--load", "0.01")
    family = eventually(lambda: [*family_of(program.pid)] if is_up(program.pid) else [], 60.0)

    # when it is interrupted
    program.send(signal.SIGINT)

    # then it says so, and nothing is left running
    assert program.code(timeout_s=30) == 130, program.output
    assert "Traceback" not in program.output
    assert json.loads(program.output.splitlines()[-1])["figures"] == {}
    eventually(lambda: not any(is_running(pid) for pid in family))


def is_up(pid: int) -> bool:
    return len(family_of(pid)) >= 3


def test_a_part_that_does_not_exist_is_refused(scripts: Any) -> None:
    done = CliRunner().invoke(scripts("bench_transport").main, ["--only", "L1,L9"])
    assert done.exit_code == 2
    assert "no part L9" in done.output
