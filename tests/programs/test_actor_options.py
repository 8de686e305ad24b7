"""Every option of an actor is one of impala-train, which hands it to its actors."""

import click
import pytest
import redis
from click.testing import CliRunner

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
    assert names(actor.main) - names(train.main) == left_out
    assert left_out == {"actor-id", "env-module", "exit-with-run"}


def arguments(*typed: str, **variables: str) -> list[str]:
    """What a program with these options hands to its actors."""

    @click.command(context_settings=CONTEXT)
    @options_for_actors
    @option("wait-redis-s", type=click.FloatRange(min=0))  # its own
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
