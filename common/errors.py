"""What can go wrong for a user; each kind has an exit code of its own (docs/reference.md).

An error's message is one sentence: what was expected, what was found, and the remedy.
"""

# Stopped by Ctrl-C or SIGTERM before the run was solved or finished; it can be resumed.
EXIT_INTERRUPTED = 130
# impala-train: the learner was killed by a signal; the run can be resumed.
EXIT_LEARNER_KILLED = 17
# impala-actor: an environment did not come back in time.
EXIT_HUNG = 18


class ImpalaError(Exception):
    """The base of all errors that the programs report, with the exit code of its kind."""

    exit_code = 1
    frames: str = ""  # the traceback of the user's own code, where that raised the error


class ConfigError(ImpalaError):
    """A preset, setting, option or value is unknown or out of range."""

    exit_code = 2


class UnsupportedEnvironment(ImpalaError):
    """The environment is unknown or not installed, or its spaces are not supported."""

    exit_code = 3


class EnvironmentFailed(UnsupportedEnvironment):
    """The environment's own code raised an error, or returned what is not in its spaces."""


class RedisUnreachable(ImpalaError):
    """The server did not answer in time: it is away, frozen, full or still starting."""

    exit_code = 4


class ServerDemoted(RedisUnreachable):
    """The server has become a replica; by now its address may lead to another server."""


class RedisDenied(ImpalaError):
    """The server refuses us: password, permission or TLS. Another try would not help."""

    exit_code = 5


class UnsuitableServer(ImpalaError):
    """The server is none of Redis, is too old, may evict keys, or has no room for the run."""

    exit_code = 6


class RunHeld(ImpalaError):
    """Another learner holds the run's lease, or a run that is to be deleted is worked on."""

    exit_code = 7

    def __init__(self, message: str, holder: str = "", left_s: float = 0.0) -> None:
        super().__init__(message)
        self.holder = holder
        self.left_s = left_s  # until the lease ends; negative if it has no end


class Fenced(ImpalaError):
    """Another learner has taken over the run that this one was working on."""

    exit_code = 8

    def __init__(self, message: str, token: str = "") -> None:
        super().__init__(message)
        self.token = token  # the token that is valid now, as number:holder


class SpecMismatch(ImpalaError):
    """The run in Redis or on disk has another environment, network or program version."""

    exit_code = 9


class RunDirectoryError(ImpalaError):
    """The run directory cannot be written, is in use already, or holds no run."""

    exit_code = 10


class OutputLost(RunDirectoryError):
    """Standard output cannot be written, as on a full disk."""


class CheckpointError(ImpalaError):
    """A checkpoint is missing, damaged, or of another network."""

    exit_code = 11


class WaitedTooLong(ImpalaError):
    """A wait, for a run or for its learner, took longer than the user allowed."""

    exit_code = 12


class ServerNotStarted(ImpalaError):
    """The embedded server was not found, did not start, or ended."""

    exit_code = 13


class RunMissing(ImpalaError):
    """Redis holds no run of that name: it was never opened, or the server has lost its memory."""

    exit_code = 14


class OutOfStep(ImpalaError):
    """Redis and the learner disagree about the blocks in flight; the run must be opened again.

    Somebody changed the list, or the reply to an opening was lost.
    """


class NotFinite(ImpalaError):
    """The loss or the gradients are not finite any more."""

    exit_code = 15


class ActorsLost(ImpalaError):
    """impala-train: the actors keep ending by themselves."""

    exit_code = 16


class RunUnreadable(ImpalaError):
    """A run directory is missing, holds no run, or holds one that this version cannot read."""

    exit_code = 19


class DeviceFull(ImpalaError):
    """The GPU has no memory left for the learner or the actor."""

    exit_code = 20


class GroupLost(ImpalaError):
    """A learner of the group has ended or does not answer; torchrun begins all of them anew."""

    exit_code = 21


class GroupApart(ImpalaError):
    """The learners of a group do not hold the same network any more."""

    exit_code = 22


class MessageRefused(ImpalaError):
    """Bytes are no message of this run. `reason` names their counter, such as "malformed"."""

    def __init__(self, reason: str, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.kind = kind or reason  # what is wrong with values, such as "observations"
        self.actor = ""  # whose message it says it is; empty where that cannot be read


# The longest text in a message. It leaves room for the longest path that a system takes.
MOST_CHARACTERS = 5000


def printable(text: object) -> str:
    """A text from outside, fit for a message: one line that a terminal does not act on.

    No line breaks or tabs, no colours or titles, no marks that turn the direction of writing, no
    halves of characters; and no end of it is cut off unless it is longer than any sentence.
    """
    whole = str(text)
    shown = "".join(c if c.isprintable() else "?" for c in whole[:MOST_CHARACTERS])
    return shown if len(whole) <= MOST_CHARACTERS else f"{shown}..."
