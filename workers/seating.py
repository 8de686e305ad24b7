"""A learner's seat: alone, or among the learners that torchrun has started with it.

torchrun starts all of a group anew when one of them dies. What an earlier attempt has begun, the
next one goes on with; what has come to an end, by an error that another attempt would meet again or
because all were asked to stop, is not begun again.
"""

import atexit
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from impala_redis.common.errors import (
    EXIT_INTERRUPTED,
    GroupLost,
    RedisUnreachable,
    RunDirectoryError,
    printable,
)
from impala_redis.common.grouping.seat import Seat, seat_in
from impala_redis.common.local import children
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.workers import stopping
from impala_redis.workers.stopping import StopFlag

if TYPE_CHECKING:
    from impala_redis.common.grouping.group import SharedStore
    from impala_redis.common.grouping.rendezvous import Rendezvous

# The store is there before the learners are, unless this learner's machine cannot reach it.
STORE_WITHIN_S = 60.0


class MeetingPlace(NamedTuple):
    """Where this learner meets the others of its group."""

    seat: Seat
    store: "SharedStore"
    rendezvous: "Rendezvous"
    parent: int  # the number of the process that has started this learner


class Seating(NamedTuple):
    """Where a learner sits; alone it needs no meeting."""

    seat: Seat | None = None
    place: MeetingPlace | None = None

    @property
    def rank(self) -> int:
        """Which learner of its group this is; the first leads it."""
        return self.seat.rank if self.seat else 0

    @property
    def ranks(self) -> int:
        """How many learners make each update."""
        return self.seat.ranks if self.seat else 1

    def directory_begun(self) -> Path | None:
        """The run directory in which an earlier attempt of the group has saved its state.

        Raises RunDirectoryError: it is not on this machine.
        """
        noted = self.noted("directory")
        if noted is None:
            return None
        if not RunDirectory(Path(noted)).holds_a_checkpoint:
            raise RunDirectoryError(
                f"the run directory {printable(noted)}, in which these learners have begun, is not "
                "on this machine; put --run-dir on a disk that all machines share"
            )
        return Path(noted)

    def end(self, code: int, sentence: str = "") -> None:
        """Keeps later attempts from beginning anew what has come to its end.

        The first learner says the `sentence`, if there is one, in the name of all.
        """
        if self.place:
            with contextlib.suppress(GroupLost):  # then there is no later attempt
                self.place.rendezvous.end(code, sentence)
            _begin_no_more(self.place, code)

    def note(self, name: str, text: str) -> None:
        """Leaves a fact to later attempts of the group's first learner."""
        if self.place:
            self.place.rendezvous.note(name, text)

    def noted(self, name: str) -> str | None:
        """What an earlier attempt has left; None for nothing."""
        return self.place.rendezvous.noted(name) if self.place else None


def leave(place: MeetingPlace) -> NoReturn:
    """Ends this learner as the group has ended, or as one that is asked to stop."""
    ended = place.rendezvous.ended
    if ended is None:
        raise SystemExit(EXIT_INTERRUPTED)  # torchrun asks for it, too, when another one has died
    code, sentence = ended
    if sentence and place.seat.rank == 0 and not place.rendezvous.noted("said"):
        place.rendezvous.note("said", sentence)
        stopping.say_error(sentence)
    _begin_no_more(place, code)
    raise SystemExit(code)


def _begin_no_more(place: MeetingPlace, code: int) -> None:
    """Has torchrun end when the first learner does, unless all goes well: it would try again.

    The first learner has said by then why it ends. With several machines each has a torchrun, and
    these come to their end together.
    """
    is_by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    is_all_here = os.environ.get("LOCAL_WORLD_SIZE") == str(place.seat.ranks)
    if code and place.seat.rank == 0 and is_by_torchrun and is_all_here:
        atexit.register(_end_torchrun, place.parent)


def _end_torchrun(parent: int) -> None:
    if os.getppid() == parent:  # else it has ended, and another has taken its place
        os.kill(parent, signal.SIGTERM)


def name_here() -> str:
    """How this learner is called in logs: with its number, but for the first one."""
    rank = os.environ.get("RANK", "0")
    return "learner" if rank == "0" else f"learner-{rank[:6]}"


@contextlib.contextmanager
def seated(stop: StopFlag) -> Iterator[Seating]:
    """This learner's seat; how the group has ended is noted for attempts that come after it.

    Raises ConfigError: torchrun's variables contradict each other. Raises GroupLost: its store
    cannot be reached. Raises SystemExit where the group has come to its end before.
    """
    seat = seat_in(os.environ)
    if seat is None:
        yield Seating()
        return
    parent = os.getppid()
    if tie := children.tie_to_parent(signal.SIGTERM, parent):
        tie()
    if seat.ranks == 1:
        yield Seating(seat)
        return
    # Late: they import torch.
    from impala_redis.common.grouping.group import connect_store
    from impala_redis.common.grouping.rendezvous import Rendezvous

    store = connect_store(seat, STORE_WITHIN_S)
    place = MeetingPlace(seat, store, Rendezvous(store, seat, stop.wait), parent)
    if place.rendezvous.ended:
        leave(place)
    seating = Seating(seat, place)
    try:
        yield seating
    except GroupLost:
        raise
    except Exception as error:
        if isinstance(error, RedisUnreachable) and stop():
            raise  # asked to stop while it waited for Redis: torchrun asks, too, if one has died
        # The first learner says its own words itself.
        said = f"learner {seat.rank} has ended: {error}" if seat.rank else ""
        seating.end(getattr(error, "exit_code", 1), said)
        raise
