"""The options of impala-actor, in one table: impala-train takes them, too, and passes them on."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from impala_redis.common.settings.declaring import MAX_ENVS, MAX_PROCESSES
from impala_redis.workers.command import Amount
from impala_redis.workers.options import MOST_THREADS, Function, option, shared
from impala_redis.workers.watchdog import STEP_TIMEOUT_S


class ActorOption(NamedTuple):
    """One option of an actor; `not_for_train` says why impala-train has none of that name."""

    add: Callable[[Function], Function]
    not_for_train: str = ""


# An option that is added here is one of impala-train as well.
ACTOR_OPTIONS: dict[str, ActorOption] = {
    "actor-id": ActorOption(
        option(
            "actor-id",
            show_default="host-pid",
            help="Name of this actor; its seed is made from it.",
        ),
        not_for_train="it names its actors itself",
    ),
    "wait-learner-s": ActorOption(
        option(
            "wait-learner-s",
            type=Amount(min=0),
            show_default="for ever",
            help="An actor gives up when no learner opens the run for this long.",
        )
    ),
    "max-learner-away-s": ActorOption(
        option(
            "max-learner-away-s",
            type=Amount(min=0),
            default=600.0,
            help="What an actor does when no learner has held its run for this long, is said by "
            "--when-learner-away; inf: it plays on.",
        )
    ),
    "when-learner-away": ActorOption(
        option(
            "when-learner-away",
            type=click.Choice(["pause", "end"]),
            default="pause",
            help="pause: an actor waits for a learner to come back; end: it ends with code 12.",
        )
    ),
    "exit-with-run": ActorOption(
        option(
            "exit-with-run",
            is_flag=True,
            help="End with code 0 when the run that was joined is solved or finished, instead of "
            "waiting for another one.",
        ),
        not_for_train="it ends its actors with the run",
    ),
    "env-module": ActorOption(
        shared("env-module"), not_for_train="its actors may import what the run names"
    ),
    "network-module": ActorOption(
        shared("network-module"),
        not_for_train="its actors may import what --network names, no more",
    ),
    "device": ActorOption(
        option(
            "device",
            type=click.Choice(["cpu", "cuda"]),
            default="cpu",
            # IMPALA_DEVICE is the learner's, and impala-train's actors see its variables.
            envvar="IMPALA_ACTOR_DEVICE",
            allow_from_autoenv=False,
            help="Where the actor's network computes; cuda is for hundreds of environments.",
        ),
        not_for_train="its own is the learner's",
    ),
    "envs": ActorOption(
        option(
            "envs",
            type=click.IntRange(1, MAX_ENVS),
            # No variable: impala-train's actors would see it, and they have the run's number.
            allow_from_autoenv=False,
            show_default="the run's --envs-per-actor",
            help="How many environments this actor steps as one vector.",
        ),
        not_for_train="its actors have the run's",
    ),
    "env-threads": ActorOption(
        option(
            "env-threads",
            type=click.IntRange(1, MOST_THREADS),
            show_default="1; with --device cuda one for each core",
            help="Threads that step an actor's environments, if these are games of Atari, played "
            "by EnvPool, or have a vector form that takes num_threads; several tasks share them.",
        )
    ),
    "env-processes": ActorOption(
        option(
            "env-processes",
            type=click.IntRange(0, MAX_PROCESSES),
            # No variable: impala-train's actors would see it, and they have the run's number.
            allow_from_autoenv=False,
            show_default="the run's --env-processes",
            help="Processes in which this actor steps its environments; 0: its own.",
        ),
        not_for_train="its actors have the run's",
    ),
    "task": ActorOption(
        option(
            "task",
            multiple=True,
            # No variable: impala-train's actors would see it, and they play all tasks.
            allow_from_autoenv=False,
            metavar="NAME",
            show_default="all of the run's",
            help="A task of the run that this actor plays, of several; may be given several times.",
        ),
        not_for_train="its actors play all of the run's tasks",
    ),
    "step-timeout-s": ActorOption(
        option(
            "step-timeout-s",
            type=Amount(min=0, min_open=True),
            show_default=f"{STEP_TIMEOUT_S:g}",
            help="A step of all an actor's environments that takes longer hangs, and so does "
            "their making with its first reset: the actor ends, for its supervisor to start "
            "another.",
        )
    ),
    "unroll-timeout-s": ActorOption(
        option(
            "unroll-timeout-s",
            type=Amount(min=0, min_open=True),
            hidden=True,
            help="What --step-timeout-s was called in release 0.1.",
        )
    ),
    "plain-push": ActorOption(
        option(
            "plain-push",
            is_flag=True,
            help="Actors push by RPUSH alone: for a user of the server that may not call "
            "functions.",
        )
    ),
    "wait-redis-s": ActorOption(shared("wait-redis-s")),
    "log-level": ActorOption(shared("log-level")),
}


def actor_options(function: Function) -> Function:
    """Adds all of them, for impala-actor."""
    for row in reversed(ACTOR_OPTIONS.values()):
        function = row.add(function)
    return function


def options_for_actors(function: Function) -> Function:
    """Adds those of impala-train; what was typed arrives as `actor_arguments`, to be passed on.

    What variables say reaches the actors by itself. Options that the program declares under the
    same name, as it also heeds them itself, are passed on as well.
    """
    names = [name for name, row in ACTOR_OPTIONS.items() if not row.not_for_train]
    own = {parameter.name for parameter in getattr(function, "__click_params__", [])}
    added = [name for name in names if _parameter(name) not in own]

    @functools.wraps(function)
    def with_arguments(**values: Any) -> Any:
        context = click.get_current_context()
        for name in added:
            del values[_parameter(name)]
        arguments = [text for name in names for text in _typed(context, name)]
        return function(**values, actor_arguments=arguments)

    decorated: Function = with_arguments
    for name in reversed(added):
        decorated = ACTOR_OPTIONS[name].add(decorated)
    return decorated


def _parameter(name: str) -> str:
    return name.replace("-", "_")


def _typed(context: click.Context, name: str) -> list[str]:
    """The option as it was typed; empty if it was not."""
    if context.get_parameter_source(_parameter(name)) is not ParameterSource.COMMANDLINE:
        return []
    value = context.params[_parameter(name)]
    if isinstance(value, bool):
        return [f"--{name}"] if value else []
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{name}={one}" for one in values]
