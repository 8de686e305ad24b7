"""What can go wrong for a user, each kind with its own exit code (README, "Exit codes").

A message is one sentence that says what was expected, what was found, and the remedy.
"""

# Stopped by Ctrl-C or SIGTERM before the run was solved or finished; it can be resumed.
EXIT_INTERRUPTED = 130
# impala-train: the learner was killed by a signal; the run can be resumed.
EXIT_LEARNER_KILLED = 17

# impala-actor: an environment did not come back in time.
EXIT_HUNG = 18


class ImpalaError(Exception):
    """Anything this project refuses or gives up on, with the exit code of its kind."""

    exit_code = 1


class ConfigError(ImpalaError):
    """A preset, key, option or value is unknown or out of range."""

    exit_code = 2


class UnsupportedEnvironment(ImpalaError):
    """The environment is unknown, not installed, or has spaces we cannot learn on."""

    exit_code = 3


class EnvironmentFailed(UnsupportedEnvironment):
    """The environment's own code raised in play, or gave what is not in its spaces."""


class RedisUnreachable(ImpalaError):
    """No answer from the server in time: it is away, frozen, full or still starting."""

    exit_code = 4


class ServerDemoted(RedisUnreachable):
    """The server is a replica now; by this time its address may lead to another."""


class RedisDenied(ImpalaError):
    """The server refuses us: password, permission or TLS. Trying again would not help."""

    exit_code = 5


class UnsuitableServer(ImpalaError):
    """The server is too old, or may evict keys or has no room for the run."""

    exit_code = 6


class RunHeld(ImpalaError):
    """Another learner holds the run's lease."""

    exit_code = 7


class Fenced(ImpalaError):
    """Another learner took the run over while this one was working on it."""

    exit_code = 8

    def __init__(self, message: str, token: str = "") -> None:
        super().__init__(message)
        self.token = token  # the one that is valid now: number:holder


class SpecMismatch(ImpalaError):
    """The run in Redis or on disk is of another environment, model or program version."""

    exit_code = 9


class RunDirectoryError(ImpalaError):
    """The run directory cannot be written, is already used, or holds no run."""

    exit_code = 10


class CheckpointError(ImpalaError):
    """No usable checkpoint: missing, damaged, or of another model."""

    exit_code = 11


class WaitedTooLong(ImpalaError):
    """A wait that the user bounded has reached its bound."""

    exit_code = 12


class ServerNotStarted(ImpalaError):
    """The embedded server was not found, did not start, or ended."""

    exit_code = 13


class RunMissing(ImpalaError):
    """Redis holds no run of that name: never opened, or lost with the server's memory."""

    exit_code = 14


class OutOfStep(ImpalaError):
    """Redis and the learner disagree on what is in flight; the run must be opened again.

    Someone has changed the list, or the reply to an opening was lost.
    """


class NotFinite(ImpalaError):
    """The loss or the gradients stopped being finite numbers."""

    exit_code = 15


class ActorsLost(ImpalaError):
    """impala-train: the actors keep ending by themselves."""

    exit_code = 16


class RunUnreadable(ImpalaError):
    """A run directory is not there, holds no run, or one that this version cannot read."""

    exit_code = 19


class DeviceFull(ImpalaError):
    """The GPU has no memory left for the learner."""

    exit_code = 20


class MessageRefused(ImpalaError):
    """Bytes that are not a frame of this run. `reason` names the counter, e.g. "malformed"."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def printable(text: object) -> str:
    """A text from outside for a message: on one line, without what a terminal would act on."""
    return "".join(c if c.isprintable() else "?" for c in str(text))
