"""What every program's command has: --version, numbers, a hint for an option of another name."""

import math
from typing import Any

import click

from impala_redis import __version__
from impala_redis.common.run.config import settings
from impala_redis.common.settings.field_names import our_name
from impala_redis.workers import saying, stopping, voice


class Program(click.Command):
    """The command of one of our programs."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Runs the command; `--help` writes before any code of ours runs, and is covered, too."""
        with voice.telling_code(), stopping.telling_lost_output():
            return super().main(*args, **options)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The program's own parameters, --help and --version."""
        return [*super().get_params(ctx), _VERSION]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses as click does; an unknown option of the field leads to the name that it has here.

        Raises click.NoSuchOption.
        """
        typed = list(args)  # click empties the list
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if isinstance(error, click.NoSuchOption) and (
                hint := self._hint(error.option_name, typed)
            ):
                error = click.NoSuchOption(error.option_name, message=hint, ctx=ctx)
            error.message = saying.printable_lines(error.message)  # type: ignore[misc]
            raise error from None  # what was typed is quoted in it

    def _hint(self, option: str, typed: list[str]) -> str | None:
        """The sentence for an option that has another name or place here; None if none is known."""
        # Click reports -l for -lr; what was typed says more.
        words = [word.partition("=")[0] for word in typed]
        begins_so = next((word for word in words if word.startswith(option)), option)
        word = option if option in words else begins_so
        name = our_name(word) or word.lstrip("-").replace("-", "_")
        ours = f"--{name.replace('_', '-')}"
        if any(ours in parameter.opts + parameter.secondary_opts for parameter in self.params):
            return f"No such option '{word}'. Did you mean '{ours}'?"
        if any(setting.key == name for setting in settings()):
            return (
                f"No such option '{word}'. It is a setting of the whole run: give {ours} to "
                "impala-learner or impala-train."
            )
        return None


class Amount(click.FloatRange):
    """A number within a range. Not `nan`, which no comparison keeps out: a wait would never end."""

    def convert(self, value: Any, parameter: Any, context: Any) -> float:
        """The number. Raises click.BadParameter."""
        number: float = super().convert(value, parameter, context)
        if math.isnan(number):
            self.fail("nan is not a number.", parameter, context)
        return number


def _print_version(ctx: click.Context, parameter: click.Parameter, asked: Any) -> None:
    if asked and not ctx.resilient_parsing:
        saying.say(f"impala-redis {__version__}")
        ctx.exit()


# No variable: IMPALA_VERSION may well be the tag of an image.
_VERSION = click.Option(
    ["--version"],
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_print_version,
    help="Show the version and exit.",
)
