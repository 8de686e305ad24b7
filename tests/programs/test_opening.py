"""How a learner gets a run that another one holds, or held: the wait for its lease."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from impala_redis.common.errors import EXIT_INTERRUPTED, RunHeld
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.workers.opening import open_when_free
from impala_redis.workers.stopping import StopFlag
from impala_redis.workers.terms import Terms
from support import Programs


class NotAsked(StopFlag):
    """Nobody asks to stop; without handlers of signals."""

    def __init__(self) -> None:
        self._stopped = False


class Asked(StopFlag):
    """Somebody has asked to stop."""

    def __init__(self) -> None:
        self._stopped = True


GO_ON = NotAsked()


@pytest.fixture
def first(redis_url: str, run_name: str) -> Iterator[LearnerLink]:
    """A learner that holds the run for two seconds, unless it renews its lease."""
    link = LearnerLink(redis_url, run_name, "there:1#first", 2.0)
    link.open()
    yield link
    link.close()


@pytest.fixture
def second(redis_url: str, run_name: str) -> Iterator[LearnerLink]:
    link = LearnerLink(redis_url, run_name, "here:1#second", 30.0)
    yield link
    link.close()


@pytest.fixture
def renewed(first: LearnerLink) -> Iterator[Callable[[], None]]:
    """The first learner lives: it renews its lease until the function is called."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(0.3):
            first.renew({})

    thread = threading.Thread(target=renew)
    thread.start()
    yield ended.set
    ended.set()
    thread.join()


def test_a_lease_that_nobody_renews_is_waited_for(
    first: LearnerLink, second: LearnerLink, caplog: pytest.LogCaptureFixture
) -> None:
    # when the one before is gone, which nobody can tell from here
    began = time.monotonic()
    open_when_free(second.open, Terms(), GO_ON)

    # then the run is taken when its lease has ended, and that was said once
    assert time.monotonic() - began < 10.0
    assert second.epoch == 2
    assert [text for text in caplog.messages if "waiting for the lease of there:1#first" in text]
    assert len(caplog.messages) == 1


def test_a_learner_that_lives_is_recognised_soon(
    renewed: Callable[[], None], second: LearnerLink
) -> None:
    # when a second learner is started by mistake
    began = time.monotonic()
    with pytest.raises(RunHeld, match="there:1#first") as held:
        open_when_free(second.open, Terms(), GO_ON)

    # then it does not wait for the lease's end
    assert time.monotonic() - began < 5.0
    assert held.value.holder == "there:1#first"
    assert 0.0 < held.value.left_s <= 2.0


@pytest.mark.parametrize("wait_lease_s", [0.0, 0.9])
def test_a_given_time_bounds_the_wait_for_any_lease(
    renewed: Callable[[], None], second: LearnerLink, wait_lease_s: float
) -> None:
    began = time.monotonic()
    with pytest.raises(RunHeld):
        open_when_free(second.open, Terms(wait_lease_s=wait_lease_s), GO_ON)
    assert wait_lease_s <= time.monotonic() - began < wait_lease_s + 5.0


def test_a_given_time_waits_for_a_learner_that_lives_and_ends(
    first: LearnerLink, second: LearnerLink, renewed: Callable[[], None]
) -> None:
    # given a learner that gives the run back after a while
    def end() -> None:
        renewed()
        first.release()

    timer = threading.Timer(0.7, end)
    timer.start()

    # when / then
    open_when_free(second.open, Terms(wait_lease_s=20.0), GO_ON)
    timer.join()
    assert second.epoch == 2


def test_a_lease_without_an_end_is_not_waited_for(
    first: LearnerLink, second: LearnerLink, raw: redis.Redis
) -> None:
    raw.persist(first.keys.lock)
    with pytest.raises(RunHeld):
        open_when_free(second.open, Terms(), GO_ON)


def test_a_learner_that_waits_for_a_lease_hears_the_signal(
    first: LearnerLink, second: LearnerLink
) -> None:
    with pytest.raises(SystemExit) as ended:
        open_when_free(second.open, Terms(), Asked())
    assert ended.value.code == EXIT_INTERRUPTED


def test_the_options_are_passed_on_as_they_were_given() -> None:
    assert Terms().as_arguments() == []
    assert Terms(True, 2.5, True).as_arguments() == [
        *("--take-over", "--allow-eviction", "--wait-lease-s=2.5")
    ]


@pytest.mark.processes
def test_a_container_that_starts_again_goes_on_with_its_run(
    programs: Programs, redis_url: str, run_name: str, raw: redis.Redis
) -> None:
    # given the lease of a learner that was killed with its container
    lock = f"impala:{{{run_name}}}:lock"
    raw.set(lock, "vm:1#other-namespace", px=100_000)

    # when the next one starts
    learner = programs.start(
        *("impala-learner", "--preset", "cartpole", "--run", run_name, "--run-dir", "run"),
        *("--redis-url", redis_url),
    )

    # then it does not end, to be started again and again, but goes on when the lease has ended
    learner.says("waiting for the lease of vm:1#other-namespace")
    raw.pexpire(lock, 1)
    learner.says("ready")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (("--engine", "numpy", "--lstm-size", "8"), "use --engine auto or torch\n"),
        (("--device", "cuda"), "use --device cpu, or install a CUDA build\n"),
    ],
)
def test_an_engine_that_cannot_compute_the_run_is_refused_before_the_run_is_taken_over(
    programs: Programs,
    redis_url: str,
    run_name: str,
    raw: redis.Redis,
    options: tuple[str, ...],
    remedy: str,
) -> None:
    # given a learner that trains
    lock = f"impala:{{{run_name}}}:lock"
    raw.set(lock, "there:1#first", px=100_000)

    # when somebody wants to take the run over, with an engine that cannot compute it, or on a GPU
    # where none is seen
    code, output = programs.run(
        *("impala-learner", "--preset", "cartpole", "--run", run_name, "--run-dir", "run"),
        *("--redis-url", redis_url, "--take-over", *options),
        CUDA_VISIBLE_DEVICES="",
    )

    # then that one keeps it
    assert code == 2, output
    assert output.endswith(remedy)
    assert raw.get(lock) == b"there:1#first"
