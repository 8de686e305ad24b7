"""Options that programs share, and the address of the server, whose password comes from a file."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from impala_redis.common.errors import ConfigError
from impala_redis.common.presets.table import PRESETS
from impala_redis.common.server.address import has_password, holds_secret, with_password
from impala_redis.common.server.password import password_in
from impala_redis.workers import credentials, handed, saying
from impala_redis.workers.command import Amount

Function = Callable[..., Any]

DEFAULT_REDIS_URL = "redis://localhost:6379/0"

# With a hundred times as many, torch ends in a segmentation fault.
MOST_THREADS = 1024

# What all commands have in common for click.
CONTEXT: dict[str, Any] = {
    "auto_envvar_prefix": "IMPALA",
    "show_default": True,
    "help_option_names": ["-h", "--help"],
}


def option(
    name: str, *, parameter: str | None = None, off: str | None = None, **details: Any
) -> Callable[[Function], Function]:
    """An option of a program, typed as --some-name or --some_name or set by IMPALA_SOME_NAME.

    With `allow_from_autoenv=False` it has no variable.

    Args:
      name: some-name, without the dashes in front.
      parameter: the function's parameter that gets the value, if its name is another one.
      off: the name that switches it off; the option is then a switch.
      details: what else `click.option` takes.
    """
    spellings = [f"--{name}/--{off}"] if off else [f"--{name}"]
    if "-" in name:
        spellings.append(spellings[0].replace("-", "_").replace("__", "--"))
    if parameter is not None:
        spellings.append(parameter)
        if details.get("allow_from_autoenv", True):  # click would make it from the parameter's name
            details["envvar"] = f"IMPALA_{name.replace('-', '_').upper()}"
    return click.option(*spellings, show_envvar=True, **details)


def shared(*names: str) -> Callable[[Function], Function]:
    """Adds the named ones of the options that several programs have."""

    def decorate(function: Function) -> Function:
        for name in reversed(names):
            function = _SHARED[name](function)
        return function

    return decorate


def redis_options(
    default: str | None = DEFAULT_REDIS_URL, show_default: str | bool = True, what: str = ""
) -> Callable[[Function], Function]:
    """Adds --redis-url and --redis-password-file; the program gets one address out of both."""

    def decorate(function: Function) -> Function:
        # Eager: --redis-url puts the password in, so this one must have been read before.
        function = option(
            "redis-password-file",
            type=click.Path(path_type=Path),
            expose_value=False,
            is_eager=True,
            callback=_note_password_file,
            help="File whose first line is the password, for an address without one.",
        )(function)
        return option(
            "redis-url",
            default=default,
            show_default=show_default,
            callback=_complete_url,
            help=f"{what}redis://[user@]host:port/db, rediss://... for TLS, unix:///path, or "
            "redis+sentinel://host:port,host:port/name. One with a password is taken from the "
            "environment variable only.",
        )(function)

    return decorate


_PASSWORD_FILE = "impala.redis_password_file"


def _note_password_file(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> None:
    context.meta[_PASSWORD_FILE] = path


def _complete_url(
    context: click.Context, parameter: click.Parameter, url: str | None
) -> str | None:
    """The address with the password from the file, unless it holds one itself."""
    source = context.get_parameter_source(parameter.name or "")
    if url and source is ParameterSource.COMMANDLINE and holds_secret(url):
        raise click.UsageError(
            "--redis-url holds a password, and everyone on this machine can read a command line: "
            "set IMPALA_REDIS_URL instead, or leave the password out of the address and put it "
            "into a file that --redis-password-file or IMPALA_REDIS_PASSWORD_FILE names",
            context,
        )
    if holds_secret(os.environ.get("IMPALA_REDIS_URL", "")):
        credentials.forget("IMPALA_REDIS_URL")  # before an environment runs, which might look
    if source is ParameterSource.DEFAULT and not context.resilient_parsing:
        url = _handed_over(context) or url
    path: Path | None = context.meta[_PASSWORD_FILE]
    if path is None or context.resilient_parsing:
        return url
    if url is None:
        raise click.UsageError(
            "a password file is given and no server that wants a password: name it with "
            "--redis-url or IMPALA_REDIS_URL, or leave the file out",
            context,
        )
    return url if has_password(url) else with_password(url, _password_in(path, context))


def _handed_over(context: click.Context) -> str | None:
    """The address from impala-train, if it has started this program."""
    try:
        return credentials.handed_over()
    except ValueError as error:
        named = handed.VARIABLE if handed.VARIABLE in os.environ else credentials.VARIABLE
        raise click.UsageError(
            f"{named} is for what impala-train starts, and {error}: unset it, and "
            "name the server by --redis-url or IMPALA_REDIS_URL",
            context,
        ) from error


def _password_in(path: Path, context: click.Context) -> str:
    """The file's first line."""
    try:
        password, others_read = password_in(path)
    except ConfigError as error:
        raise click.UsageError(str(error), context) from error
    if others_read:
        saying.say(
            f"warning: every user of this machine can read the password file {path}; "
            f"run: chmod 600 {shlex.quote(str(path))}",
            err=True,
        )
    return password


_SHARED: dict[str, Callable[[Function], Function]] = {
    "redis-url": redis_options(),
    "run": option("run", show_default="the preset's or the --env's name", help="Name of the run."),
    "that-run": option("run", help="Name of the run, as its learner and impala-train print it."),
    "run-dir": option(
        "run-dir",
        type=click.Path(path_type=Path, file_okay=False),
        show_default="runs/<run>, numbered when that holds a run",
        help="Where config, metrics, checkpoints and result go.",
    ),
    "preset": option("preset", help=f"Settings for a task: {', '.join(sorted(PRESETS))}."),
    "config": option(
        "config",
        parameter="config_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="TOML file of settings; outranks the preset.",
    ),
    "engine": option(
        "engine",
        type=click.Choice(["auto", "numpy", "torch"]),
        default="auto",
        help="What the learner computes with. auto: numpy, which is faster and starts sooner, for "
        "hidden layers alone on a CPU; torch for all else. A run can go on with the other one.",
    ),
    "device": option(
        "device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="Where the learner computes; auto takes a GPU if there is one.",
    ),
    "resume": option(
        "resume",
        is_flag=True,
        help="Continue the run in the run directory from its newest checkpoint.",
    ),
    "init-from": option(
        "init-from",
        metavar="RUN",
        help="Begin with the weights of another run, and with its running figures: a run "
        "directory, a checkpoint, or NAME for runs/NAME. Counters, optimizer and schedules "
        "begin anew. A run that --resume continues goes on from its own checkpoint.",
    ),
    "threads": option(
        "threads",
        type=click.IntRange(1, MOST_THREADS),
        default=1,
        help="Processor threads that the learner computes with.",
    ),
    "env-module": option(
        "env-module",
        multiple=True,
        help="A module, or its file, that may be imported when it makes a run's environment, as in "
        "module:Id, or a wrapper of it; or an Id that may have any arguments. Without this only "
        "the names of Gymnasium's registry are taken, and no argument that may name a file.",
    ),
    "network-module": option(
        "network-module",
        multiple=True,
        help="A module, or its file, that may be imported when a run's network is made by it, as "
        "in --network module:Name; without this only the networks that are built in are taken.",
    ),
    "wait-redis-s": option(
        "wait-redis-s",
        type=Amount(min=0),
        default=30.0,
        help="Seconds to wait at the start for a server that does not answer.",
    ),
    "log-level": option(
        "log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        help="Least severity of the log lines on standard error.",
    ),
}
