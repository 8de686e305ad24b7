"""Where a learner sits: alone, or in a group whose attempts go on where the one before was."""

import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from updates import make_config, spec_of

from chaos.servers import free_port
from impala_redis.common.errors import (
    ConfigError,
    GroupLost,
    NotFinite,
    RedisUnreachable,
    RunDirectoryError,
)
from impala_redis.common.local import children
from impala_redis.common.records import checkpoint
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.workers import opening
from impala_redis.workers.seating import seated
from impala_redis.workers.stopping import StopFlag
from impala_redis.workers.terms import Terms
from support import Programs

ALONE = """
import os, sys
from impala_redis.workers import learner, seating
from impala_redis.workers.stopping import StopFlag

with seating.seated(StopFlag()) as seat:
    assert (seat.rank, seat.ranks, seat.place) == (0, 1, None)
    seat.note("directory", "run")
    assert seat.directory_begun() is None
print([name for name in sys.modules if name.partition(".")[0] == "torch"])
"""


class GoOn(StopFlag):
    """Nobody asks to stop; without handlers of signals."""

    def __init__(self) -> None:
        self._stopped = False


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """The variables that torchrun gives both ranks, and a store that outlives the attempts."""
    from impala_redis.common.grouping.group import connect_store  # late: it imports torch
    from impala_redis.common.grouping.seat import Seat

    # Else the tests would end with the process that has started them, by a signal.
    monkeypatch.setattr(children, "tie_to_parent", lambda *_: None)
    port = free_port()
    store = connect_store(Seat(0, 2, 0, 0, "localhost", port, serves_store=True), timeout_s=10)
    variables = {
        **{"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)},
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sit(monkeypatch, 0)
    yield variables
    assert store.raw is not None  # it is served up to here


def sit(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """This process is that rank from here on."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("LOCAL_RANK", str(rank))


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_a_learner_alone_imports_no_torch_to_take_its_seat(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', and not a number from 1 to 1024"),
        ({"WORLD_SIZE": "2"}, "MASTER_ADDR is missing"),
    ],
)
def test_variables_that_make_no_seat_end_the_learner_in_a_sentence(
    programs: Programs, variables: dict[str, str], said: str
) -> None:
    code, output = programs.run("impala-learner", "--preset", "cartpole", **variables)
    assert code == 2, output
    assert output.count("\n") == 1
    assert said in output
    assert "start the group by torchrun, or unset WORLD_SIZE for one learner alone" in output


@pytest.mark.usefixtures("torchrun")
def test_an_error_that_another_attempt_would_meet_again_ends_all_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a rank that ended so
    sit(monkeypatch, 1)
    with pytest.raises(NotFinite), seated(GoOn()):
        raise NotFinite("the gradients are not finite")

    # when all begin anew, twice
    for rank in (1, 0, 0, 1):
        sit(monkeypatch, rank)
        with pytest.raises(SystemExit) as ended, seated(GoOn()):
            pytest.fail("it took a seat")
        assert ended.value.code == NotFinite.exit_code

    # then rank 0 has said why, once
    said = capsys.readouterr().err
    assert said.count("learner 1 has ended: the gradients are not finite") == 1, said


@pytest.mark.usefixtures("torchrun")
def test_rank_0_says_its_own_error_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError), seated(GoOn()):
        raise ConfigError("this cannot be")
    with pytest.raises(SystemExit) as ended, seated(GoOn()):
        pytest.fail("it took a seat")
    assert (ended.value.code, capsys.readouterr().err) == (ConfigError.exit_code, "")


@pytest.mark.usefixtures("torchrun")
@pytest.mark.parametrize("ending", [GroupLost("rank 1 is gone"), SystemExit(130)])
def test_what_ends_an_attempt_alone_is_followed_by_another(
    ending: BaseException, tmp_path: Path
) -> None:
    # given an attempt that has begun the run, and was ended by a rank's death
    run = RunDirectory(tmp_path / "ö")
    checkpoint.save(run.checkpoints, 1, {}, {}, keep=1)
    with pytest.raises(type(ending)), seated(GoOn()) as first:
        assert (first.directory_begun(), first.noted("holder")) == (None, None)
        first.note("directory", str(run.path))
        first.note("holder", "here:1#first")
        raise ending

    # when
    with seated(GoOn()) as second:
        # then it goes on in that directory
        assert second.directory_begun() == run.path
        assert second.noted("holder") == "here:1#first"


@pytest.mark.usefixtures("torchrun")
def test_a_run_that_was_begun_on_another_machine_is_not_begun_again_here(tmp_path: Path) -> None:
    with seated(GoOn()) as first:
        first.note("directory", str(tmp_path / "not-here"))
    with (
        pytest.raises(RunDirectoryError, match="on a disk that all machines share"),
        seated(GoOn()) as second,
    ):
        second.directory_begun()


@pytest.mark.usefixtures("torchrun")
def test_a_server_that_is_away_while_torchrun_ends_all_is_no_end_of_the_run() -> None:
    # given one that is asked to stop while it waits for Redis, as when another learner has died
    stop = GoOn()
    with pytest.raises(RedisUnreachable), seated(stop):
        stop._stopped = True
        raise RedisUnreachable("no answer")

    # then the next attempt takes its seat
    with seated(GoOn()) as second:
        assert second.ranks == 2


def test_the_lease_of_the_attempt_before_is_taken_over_at_once(
    redis_url: str, run_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    # given a lease, of a process that may live for all that this machine knows
    first = LearnerLink(redis_url, run_name, "elsewhere:1#first", 60.0, 0, 2)
    second = LearnerLink(redis_url, run_name, "elsewhere:2#second", 60.0, 0, 2)
    first.open()
    caplog.set_level(logging.WARNING)

    # when the next attempt knows that it was its own
    spec = spec_of(make_config())
    opening.take(
        *(second, spec, 3, Terms(wait_lease_s=0.0), lambda ask: ask(), GoOn()),
        predecessor="elsewhere:1#first",
    )

    # then
    assert second.current_holder() == "elsewhere:2#second"
    assert "taking the run over from elsewhere:1#first, which is gone" in caplog.text
    first.close()
    second.close()
