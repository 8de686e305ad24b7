"""Threads that do parts of one job: all of them, and they end when nobody holds them."""

import gc
import threading

import pytest

from impala_redis.common.devices.threads import Threads


def computing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("computing-")]


@pytest.mark.parametrize("size", [1, 3])
def test_each_part_is_done_once_on_a_thread_of_its_own(size: int) -> None:
    # given
    pool = Threads(size)
    threads: dict[int, threading.Thread] = {}

    # when
    pool.do(lambda part: threads.update({part: threading.current_thread()}))

    # then
    assert sorted(threads) == list(range(size))
    assert threads[0] is threading.current_thread()
    assert len(set(threads.values())) == size


@pytest.mark.parametrize("failing", [0, 2])
def test_a_part_that_fails_fails_the_job_and_the_others_go_on(failing: int) -> None:
    # given
    pool = Threads(3)
    done = []

    def job(part: int) -> None:
        if part == failing:
            raise ValueError(str(part))
        done.append(part)

    # when
    with pytest.raises(ValueError, match=str(failing)):
        pool.do(job)

    # then the others' parts are done, and so is the next job
    assert sorted(done) == [part for part in range(3) if part != failing]
    pool.do(done.append)
    assert len(done) == 5


def test_the_threads_end_when_nobody_holds_them_any_more() -> None:
    # given
    before = set(computing_threads())
    pool = Threads(3)
    pool.do(lambda part: None)
    mine = set(computing_threads()) - before
    assert len(mine) == 2

    # when
    del pool
    gc.collect()

    # then
    for thread in mine:
        thread.join(timeout=10.0)
        assert not thread.is_alive()
