"""impala-status --delete: takes the keys of a run that nobody works on off the server."""

import functools
from typing import Any

import click

from impala_redis.common.errors import ConfigError
from impala_redis.common.server.address import without_password
from impala_redis.common.transport.monitor import OperatorLink
from impala_redis.workers import saying, stopping
from impala_redis.workers.options import Function
from impala_redis.workers.plan import run_name


def may_delete(function: Function) -> Function:
    """Adds --delete to impala-status; with it the run is deleted instead of shown."""

    @functools.wraps(function)
    def show_or_delete(delete: bool, **values: Any) -> None:
        if not delete:
            function(**values)
            return
        stopping.set_up_logging(values["log_level"], "status")
        with stopping.exit_codes(stopping.StopFlag()):
            if values["watch"]:
                raise ConfigError("--delete is done once: leave out --watch")
            if not values["run"]:
                raise ConfigError("which run is to be deleted? give --run NAME")
            _delete(values["redis_url"], run_name(values["run"]), values["as_json"])

    return click.option(
        "--delete",
        is_flag=True,
        # No variable: one that was left in a shell must not delete anything.
        allow_from_autoenv=False,
        show_envvar=True,
        help="Delete the run's keys instead, unless a learner holds it or an actor lives. Its run "
        "directory stays as it is.",
    )(show_or_delete)


def _delete(redis_url: str, run: str, as_json: bool) -> None:
    link = OperatorLink(redis_url, run, "status")
    deleted = link.delete_run()
    link.close()
    where = without_password(redis_url)
    if as_json:
        saying.say_json({"run": run, "deleted_keys": deleted})
        return
    saying.say(
        f"deleted the run {run} from {where}: {deleted} keys; its run directory is as it was"
    )
