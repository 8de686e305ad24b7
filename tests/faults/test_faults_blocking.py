"""Actors that wait for room (--queue-policy block): what dies meanwhile, and what is lost by it.

Rows 53 to 55 of the fault matrix.
"""

import signal

import pytest
import redis
from full import in_full

from chaos.crew import Crew
from chaos.servers import OwnServer
from support import Program, Programs, eventually

pytestmark = pytest.mark.processes

BLOCKS = 2
BLOCKING = ("--queue-policy", "block", "--queue-blocks", str(BLOCKS))


@pytest.fixture
def crew(programs: Programs, redis_url: str, run_name: str) -> Crew:
    """Programs of one run at the session's server."""
    return Crew(programs, redis_url, run_name)


def all_wait(crew: Crew, actors: int) -> dict[str, dict[str, str]]:
    """Waits until every actor stands still for want of room; what each last said of itself."""

    def look() -> dict[str, dict[str, str]]:
        records = crew.actor_records()
        still = [r for r in records.values() if r["frames_per_s"] == "0" != r["frames"]]
        waiting = [r for r in still if float(r["waited_s"]) > 0.5]
        return records if len(waiting) == actors else {}

    return eventually(look, what=f"{actors} actors to wait")


def stopped(learner: Program) -> None:
    """Stops the learner's process, which takes no more blocks then."""
    learner.send(signal.SIGSTOP)


@pytest.mark.fault(55)
@pytest.mark.parametrize("options", ["--plain-push", *in_full("")])
def test_without_a_learner_actors_stand_still_and_nothing_is_lost(crew: Crew, options: str) -> None:
    # given two actors that wait for room, and their learner
    learner = crew.learner(*BLOCKING)
    actors = [crew.actor(*options.split()) for _ in range(2)]
    learner.says("first batch is here")
    for actor in actors:
        actor.says("joined")

    # when it is killed
    learner.send(signal.SIGKILL)
    learner.code()

    # then the list fills, and they wait; each holds one block that waits and one behind it
    records = all_wait(crew, 2)
    books = crew.balanced()
    assert BLOCKS <= books["queued"] <= BLOCKS + (len(actors) - 1 if options else 0)
    assert books["dropped_oldest"] == 0
    for record in records.values():
        assert (record["pending_local"], record["shed_local"]) == ("2", "0")
    assert books["produced"] == sum(int(record["accepted"]) for record in records.values())

    # and go on with the next learner, which finds all of it
    again = crew.learner("--resume", *BLOCKING)
    crew.goes_on()
    crew.unharmed(again, *actors)
    assert crew.ends_well()["dropped_oldest"] == 0


@pytest.mark.fault(56)
@pytest.mark.parametrize("number", [signal.SIGKILL, *in_full(signal.SIGTERM)])
def test_an_actor_that_waits_may_die_or_be_asked_to_stop(
    crew: Crew, raw: redis.Redis, number: signal.Signals
) -> None:
    # given two actors that wait for a learner that does nothing
    learner = crew.learner(*BLOCKING)
    dies = crew.actor("--actor-id", "dies")
    lives = crew.actor("--actor-id", "lives")
    learner.says("first batch is here")
    lives.says("joined")
    dies.says("joined")
    stopped(learner)
    records = all_wait(crew, 2)

    # when one is ended, then it is gone within its time to flush and a second
    dies.send(number)
    assert dies.code(5) == (-signal.SIGKILL if number == signal.SIGKILL else 0), dies.output

    # then it has lost its two blocks at most, and all that it was told were accepted are there
    books = crew.balanced()
    assert books["produced"] == sum(int(record["accepted"]) for record in records.values())
    assert (books["queued"], books["dropped_oldest"]) == (BLOCKS, 0)

    # and the other one goes on when the learner does
    learner.send(signal.SIGCONT)
    crew.goes_on()
    crew.unharmed(learner, lives)
    assert crew.ends_well()["dropped_oldest"] == 0


@pytest.mark.fault(57)
@pytest.mark.parametrize("options", ["", *in_full("--plain-push")])
def test_actors_that_wait_outlive_a_restart_of_the_server(
    programs: Programs, own_server: OwnServer, run_name: str, options: str
) -> None:
    # given actors that wait for a learner that does nothing
    crew = Crew(programs, own_server.url, run_name)
    learner = crew.learner(*BLOCKING)
    actors = [crew.actor(*options.split()) for _ in range(2)]
    learner.says("first batch is here")
    for actor in actors:
        actor.says("joined")
    stopped(learner)
    all_wait(crew, 2)
    generation = crew.books()["generation"]

    # when the server is restarted without its memory, and the learner goes on
    own_server.restart(signal.SIGKILL)
    learner.send(signal.SIGCONT)

    # then so does the run, and nothing was dropped in its new books
    crew.goes_on()
    crew.unharmed(learner, *actors)
    books = crew.ends_well()
    assert books["generation"] != generation
    assert books["dropped_oldest"] == 0
