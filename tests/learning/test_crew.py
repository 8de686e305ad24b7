"""Threads that do parts of one job: all of them, and they end with their crew."""

import gc
import threading

import pytest

from impala_redis.common.learning.crew import Crew


def crew_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("crew-")]


@pytest.mark.parametrize("size", [1, 3])
def test_each_part_is_done_once_on_a_thread_of_its_own(size: int) -> None:
    # given
    crew = Crew(size)
    threads: dict[int, threading.Thread] = {}

    # when
    crew.do(lambda part: threads.update({part: threading.current_thread()}))

    # then
    assert sorted(threads) == list(range(size))
    assert threads[0] is threading.current_thread()
    assert len(set(threads.values())) == size


@pytest.mark.parametrize("failing", [0, 2])
def test_a_part_that_fails_fails_the_job_and_the_crew_goes_on(failing: int) -> None:
    # given
    crew = Crew(3)
    done = []

    def job(part: int) -> None:
        if part == failing:
            raise ValueError(str(part))
        done.append(part)

    # when
    with pytest.raises(ValueError, match=str(failing)):
        crew.do(job)

    # then the others' parts are done, and so is the next job
    assert sorted(done) == [part for part in range(3) if part != failing]
    crew.do(done.append)
    assert len(done) == 5


def test_the_threads_end_when_nobody_holds_the_crew_any_more() -> None:
    # given
    before = set(crew_threads())
    crew = Crew(3)
    crew.do(lambda part: None)
    mine = set(crew_threads()) - before
    assert len(mine) == 2

    # when
    del crew
    gc.collect()

    # then
    for thread in mine:
        thread.join(timeout=10.0)
        assert not thread.is_alive()
