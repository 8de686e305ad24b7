"""Errors of an environment's own code: which error, and where in the user's files it came up.

Frames of ours and of Gymnasium's wrappers lead there and say nothing, so they are left out.
"""

import contextlib
import itertools
import os
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import gymnasium

from impala_redis.common.errors import EnvironmentFailed, UnsupportedEnvironment, printable
from impala_redis.common.user_code import modules

_NOT_SHOWN = (f"{Path(__file__).parents[2]}/", f"{Path(gymnasium.__file__).parent}/", "<frozen ")
# An error's text is cut here: the place behind it must still be read.
_MOST_CHARACTERS = 300
# Simulators that Gymnasium's own environments need; in small letters, each is an extra of ours.
EXTRAS_BY_NAME = ("Box2D", "MuJoCo")
_STDLIB = sysconfig.get_path("stdlib") + "/"
_INSTALLED = (_STDLIB, *(sysconfig.get_path(name) + "/" for name in ("platlib", "purelib")))


class Named:
    """A block in which an environment's code runs; it may be entered again and again.

    What is raised there becomes EnvironmentFailed, with the environment's id, file and line. A
    KeyboardInterrupt or an exit that the code asks for is an error like any other. In a process
    that the code has forked it ends that process, which is no second actor.
    """

    def __init__(self, env_id: str, doing: str) -> None:
        self._env_id, self._doing = env_id, doing
        self._process = 0

    def __enter__(self) -> None:
        self._process = os.getpid()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, UnsupportedEnvironment):  # these are our own words
            return
        end_if_forked(error, self._process)
        failure = EnvironmentFailed(
            f"{self._env_id} failed in {self._doing}: {what(error)}{where(error)}"
        )
        failure.frames = frames(error)
        raise failure from error


@contextlib.contextmanager
def refusals(env_id: str, doing: str, given: str = "") -> Iterator[None]:
    """Turns whatever an environment's making raises into UnsupportedEnvironment, one sentence.

    `given` is what was given for the making, as the end of that sentence.
    """
    process = os.getpid()
    try:
        with warnings.catch_warnings():
            # Gymnasium warns about spaces and versions; our own checks cover what matters here.
            warnings.simplefilter("ignore")
            yield
    except gymnasium.error.DependencyNotInstalled as error:
        raise UnsupportedEnvironment(f"{env_id} lacks {_missing(error)}") from error
    except (gymnasium.error.Error, ImportError) as error:
        raise UnsupportedEnvironment(
            f"there is no environment {env_id!r}: {first_line(error)}"
            f"{where(error)}{modules.hidden_neighbours(env_id)}"
            f"{modules.way_on(env_id, error)}"
        ) from error
    except BaseException as error:  # of the environment's constructor
        end_if_forked(error, process)
        failure = UnsupportedEnvironment(
            f"{env_id} cannot be {doing}: {_why_not_made(error)}{modules.hidden_neighbours(env_id)}"
            f"{given}"
        )
        failure.frames = frames(error)
        raise failure from error


def _missing(error: BaseException) -> str:
    """Which package is missing, by Gymnasium's words, and how it is installed."""
    for name in EXTRAS_BY_NAME:
        if name in str(error):
            extra = name.lower()
            return (
                f"{name}: run pip install 'impala-redis[{extra}]', or in a checkout "
                f"scripts/setup.sh {extra}"
            )
    return f"a package: {first_line(error)}"


def _why_not_made(error: BaseException) -> str:
    if isinstance(error, UnsupportedEnvironment):  # our own words
        return str(error)
    if isinstance(error, TypeError) and "argument 'render_mode'" in str(error):
        return "it draws no pictures (it takes no render_mode)"
    place = where(error)
    if isinstance(error, TypeError) and "() missing " in str(error) and not place:
        return (  # of the call that Gymnasium makes
            f"{first_line(error).partition(' was raised from')[0]}; give its arguments by "
            "--env-kwargs, or register it with kwargs={...}"
        )
    return f"{what(error)}{place}"


def end_if_forked(error: BaseException, process: int) -> None:
    """Ends this process, as Python would by that error, if it is not the one of that number."""
    if os.getpid() == process:
        return
    code = error.code if isinstance(error, SystemExit) else what(error)
    if code is not None and not isinstance(code, int):
        with contextlib.suppress(OSError):
            os.write(2, f"a process that the environment forked: {what(error)}\n".encode())
        code = 1
    os._exit((code or 0) & 255)


def what(error: BaseException) -> str:
    """The error in a few words: its kind and the first line of its text."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({printable(repr(error.code))[:40]})"
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without its full stop, and cut if it is very long."""
    try:
        text = str(error).strip()
    except Exception:
        text = "its text cannot be read"
    if not text:
        return "no reason"
    line = printable(text.splitlines()[0]).rstrip(".")
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}..."


def where(error: BaseException) -> str:
    """The innermost place in the user's own files, as the end of a sentence; empty if unknown."""
    causes = itertools.islice(_causes(error), 10)
    found = next(filter(None, (_shown(cause.__traceback__) for cause in causes)), [])
    found = [
        f for f in found if "site-packages" in f.filename or not f.filename.startswith(_STDLIB)
    ]
    own = [frame for frame in found if not frame.filename.startswith(_INSTALLED)]
    if not found:
        return ""
    frame = (own or found)[-1]
    path = Path(frame.filename)
    with contextlib.suppress(OSError, ValueError):
        path = path.relative_to(Path.cwd())
    return f" ({printable(path)}, line {frame.lineno}, in {frame.name})"


def frames(error: BaseException) -> str:
    """The traceback of an error and of its causes; empty if no frame of it is the user's."""
    if not where(error):
        return ""
    report = traceback.TracebackException.from_exception(error)
    one: traceback.TracebackException | None = report
    while one is not None:
        shown = [f for f in one.stack if not f.filename.startswith(_NOT_SHOWN)]
        one.stack = traceback.StackSummary.from_list(shown)
        one = one.__cause__ or one.__context__
    # Without the word that stands for a fault of the program's own.
    lines = "".join(report.format()).rstrip().splitlines()
    return "\n".join(line for line in lines if not line.startswith("Traceback "))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def _shown(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    return [f for f in traceback.extract_tb(trace) if not f.filename.startswith(_NOT_SHOWN)]
