"""Every option of an actor is one of impala-train, which hands it to its actors."""

import click
import pytest
import redis
import torch
from click.testing import CliRunner

from impala_redis.common.transport.monitor import MonitorLink, residual
from impala_redis.workers import actor, train
from impala_redis.workers.actor_options import ACTOR_OPTIONS, options_for_actors
from impala_redis.workers.options import CONTEXT, option
from support import Programs


def names(command: click.Command) -> set[str]:
    """The options of a command, without the dashes in front."""
    return {
        opt.removeprefix("--")
        for parameter in command.params
        for opt in parameter.opts
        if "_" not in opt
    }


def test_train_has_every_option_of_an_actor_or_says_why_not() -> None:
    left_out = {name for name, row in ACTOR_OPTIONS.items() if row.not_for_train}
    assert names(actor.main) - names(train.main) == left_out - {
        "device",
        "env-processes",
    }
    assert left_out == {
        *("actor-id", "device", "env-module", "env-processes", "envs", "exit-with-run"),
        *("network-module", "task"),
    }


def test_the_learners_device_is_not_the_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    device = next(parameter for parameter in actor.main.params if parameter.name == "device")
    context = click.Context(actor.main, auto_envvar_prefix="IMPALA")

    # when impala-train is told of the learner's device by a variable, which its actors see
    monkeypatch.setenv("IMPALA_DEVICE", "cuda")

    # then only a variable of their own is theirs
    assert device.value_from_envvar(context) is None
    monkeypatch.setenv("IMPALA_ACTOR_DEVICE", "cuda")
    assert device.value_from_envvar(context) == "cuda"


def arguments(*typed: str, **variables: str) -> list[str]:
    """What a program with these options hands to its actors."""

    @click.command(context_settings=CONTEXT)
    @options_for_actors
    @option("wait-redis-s", type=click.FloatRange(min=0))
    @option("log-level")
    def program(wait_redis_s: float | None, log_level: str, actor_arguments: list[str]) -> None:
        click.echo("\n".join(actor_arguments))

    result = CliRunner().invoke(program, list(typed), env=variables, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.split()


@pytest.mark.parametrize(
    ("typed", "passed_on"),
    [
        ((), []),
        (("--unroll-timeout-s", "900"), ["--unroll-timeout-s=900.0"]),
        (("--unroll_timeout_s=0.5", "--plain-push"), ["--unroll-timeout-s=0.5", "--plain-push"]),
        (("--wait-learner-s", "0"), ["--wait-learner-s=0.0"]),
        (
            ("--wait-redis-s", "3", "--log-level", "debug"),
            ["--wait-redis-s=3.0", "--log-level=debug"],
        ),
    ],
)
def test_what_was_typed_is_handed_on(typed: tuple[str, ...], passed_on: list[str]) -> None:
    assert arguments(*typed) == passed_on


def test_what_a_variable_says_reaches_the_actors_by_itself() -> None:
    assert arguments(IMPALA_UNROLL_TIMEOUT_S="900", IMPALA_PLAIN_PUSH="1") == []


@pytest.mark.processes
def test_actors_of_train_act_on_the_options_that_it_was_given(
    programs: Programs, redis_url: str, run_name: str, raw: redis.Redis
) -> None:
    # when
    code, output = programs.run(
        *("impala-train", "--preset", "cartpole", "--total-frames", "10000", "--plain-push"),
        *("--run", run_name),
        IMPALA_REDIS_URL=redis_url,
    )

    # then no block came by the push functions
    assert code == 0, output
    stats = raw.hgetall(f"impala:{{{run_name}}}:stats")
    assert int(stats[b"foreign"]) == int(stats[b"produced"]) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_the_actor_looks_for_its_run(
    programs: Programs,
) -> None:
    # given no server either
    options = ("--run", "none", "--wait-redis-s", "0", "--redis-url", "redis://127.0.0.1:1/0")

    # when
    code, output = programs.run("impala-actor", *options, "--device", "cuda")

    # then
    assert code == 2, output
    assert output == ("error: this torch finds no GPU; use --device cpu, or install a CUDA build\n")


@pytest.mark.processes
def test_an_actor_of_more_environments_than_the_runs_plays_for_it(
    programs: Programs, redis_url: str, run_name: str
) -> None:
    # given a run of 16 environments to an actor, of which two have other numbers
    address = {"IMPALA_REDIS_URL": redis_url}
    run = ("--preset", "cartpole", "--envs-per-actor", "16", "--total-frames", "20000")
    learner = programs.start("impala-learner", *run, "--run", run_name, **address)
    actors = [
        programs.start(
            *("impala-actor", "--run", run_name, "--exit-with-run", "--actor-id", f"{envs}"),
            *("--envs", f"{envs}"),
            **address,
        )
        for envs in (100, 5)
    ]

    # when
    codes = [program.code() for program in (learner, *actors)]

    # then each has played its own number, and every block is in the books
    assert codes == [0, 0, 0], "\n".join(program.output for program in (learner, *actors))
    for envs, program in zip((100, 5), actors, strict=True):
        assert f"joined {run_name}: {envs} x CartPole-v1" in program.output
    link = MonitorLink(redis_url, run_name, "test")
    books = link.read_books()
    link.close()
    assert books["consumed"] > 0
    assert books["dead_lettered"] == 0
    assert residual(books) == 0
