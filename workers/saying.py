"""The one door to the terminal: nothing that stands in a text of strangers acts on it.

Texts quote others: names of a run in Redis, a checkpoint's facts, a server's replies, an
environment's errors. A line of ours is a line there, without colours, titles, bells and marks that
turn the direction of writing, and it comes to an end. JSON has escapes for all of them.
"""

import json
import math
import os
import sys
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from impala_redis.common.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

# The most lines of one text, such as an error of an environment's code with its frames.
MOST_LINES = 500


def printable_lines(text: str) -> str:
    """A text of several lines, each fit for a terminal."""
    lines = text[: MOST_LINES * 10_000].split("\n")
    shown = [printable(line) for line in lines[:MOST_LINES]]
    return "\n".join([*shown, *(["..."] if len(lines) > MOST_LINES else [])])


def say(text: str, *, err: bool = False) -> None:
    """Prints lines to standard output, or to standard error."""
    click.echo(printable_lines(text), err=err)


def say_on(console: "Console", text: str) -> None:
    """Prints one line on a console of rich, to which it is text and no markup."""
    console.print(printable(text), markup=False, emoji=False)


def say_at_once(line: str) -> None:
    """Writes a line to standard error on any thread: another one may hold the stream's lock."""
    os.write(sys.stderr.fileno(), f"{printable(line)}\n".encode(errors="replace"))


def as_json(document: Any) -> str:
    """One line of JSON, in ASCII. JSON has no numbers that are not finite: they are null."""
    try:
        return json.dumps(document, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(document))


def say_json(document: Any) -> None:
    """Prints one line of JSON to standard output."""
    click.echo(as_json(document))


def say_fault(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints the traceback of a fault of our own: it may quote strangers, too."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), err=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
