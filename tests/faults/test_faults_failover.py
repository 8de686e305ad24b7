"""Several servers that act as one: a master that sentinels replace, and a slot that moves.

Each test is a row of the fault matrix (docs/reliability.md), with real programs, and real servers
and sentinels.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.clusters import DOWN_AFTER_S, OwnCluster, OwnSentinels
from chaos.crew import Crew, trained
from impala_redis.common.server.connection import SOCKET_TIMEOUT_S
from support import Programs, eventually

# Once the sentinels have seen that a master is down.
FAIL_OVER_S = 5.0


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[OwnSentinels]:
    """A master, its replica, and three sentinels."""
    with OwnSentinels(tmp_path) as running:
        yield running


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[OwnCluster]:
    """Two nodes, of which the first has the run's slot."""
    with OwnCluster(tmp_path) as running:
        yield running


# Row 53: a fail-over.


@pytest.mark.fault(53)
@pytest.mark.processes
def test_training_goes_on_at_the_promoted_replica_after_the_master_was_killed(
    programs: Programs, sentinels: OwnSentinels, run_name: str
) -> None:
    # given a run at work, and a replica in step
    crew = Crew(programs, sentinels.url, run_name)
    learner, (actor,) = crew.at_work(1, "--log-level", "debug")
    eventually(sentinels.in_step)
    generation, master = crew.books()["generation"], sentinels.master()

    # when the master is killed
    master.stop(signal.SIGKILL)

    # then training goes on at the other, soon after the sentinels have seen it
    crew.goes_on(1, DOWN_AFTER_S + FAIL_OVER_S)
    crew.goes_on()
    crew.unharmed(learner, actor)
    sentinels.wait_for_another(master)
    assert str(master.port) in actor.output

    # and nothing is unexplained or used twice; what the replica had not yet got is said to be lost
    books = crew.ends_well()
    assert books["generation"] == generation or "OPENING THE RUN AGAIN" in learner.output
    blocks = trained([learner])
    assert len(blocks) == len(set(blocks)) >= books["consumed"] > 0


@pytest.mark.fault(53)
@pytest.mark.processes
@pytest.mark.full
def test_training_goes_on_while_a_silent_master_is_replaced_and_when_it_is_back(
    programs: Programs, sentinels: OwnSentinels, run_name: str
) -> None:
    # given a run at work, and a replica in step
    crew = Crew(programs, sentinels.url, run_name)
    learner, (actor,) = crew.at_work(1, "--log-level", "debug")
    eventually(sentinels.in_step)
    master = sentinels.master()

    # when the master is silent, its connections open
    with master.frozen():
        sentinels.wait_for_another(master)
        crew.goes_on(1, SOCKET_TIMEOUT_S + FAIL_OVER_S)

    # then it may take itself for the master once more: nobody goes back to it
    crew.goes_on()
    crew.unharmed(learner, actor)
    assert sentinels.master() is not master
    crew.ends_well()
    blocks = trained([learner])
    assert len(blocks) == len(set(blocks))


@pytest.mark.fault(53)
@pytest.mark.processes
@pytest.mark.full
def test_without_sentinels_programs_work_on_and_later_wait(
    programs: Programs, sentinels: OwnSentinels, run_name: str
) -> None:
    # given a run at work
    crew = Crew(programs, sentinels.url, run_name)
    learner, (actor,) = crew.at_work()
    master = sentinels.master()
    direct = Crew(programs, master.url, run_name)
    eventually(sentinels.in_step)

    # when all sentinels are frozen, then it works on
    for sentinel in sentinels.sentinels:
        sentinel.send_signal(signal.SIGSTOP)
    direct.goes_on()

    # and when the master restarts, without its memory, it is waited for until they are back
    master.restart()
    learner.says("waiting for Redis")
    actor.says("acting on without Redis")
    code, words = crew.status()
    assert (code, "no sentinel tells where the master is" in words) == (4, True), words
    for sentinel in sentinels.sentinels:
        sentinel.send_signal(signal.SIGCONT)
    crew.goes_on(timeout_s=30.0)
    crew.ends_well()


# Row 54: a slot that moves.


@pytest.mark.fault(54)
@pytest.mark.processes
def test_training_goes_on_when_the_runs_slot_moves_to_another_node_and_back(
    programs: Programs, cluster: OwnCluster, run_name: str
) -> None:
    # given a run at work, whose programs were given a node that does not have it
    crew = Crew(programs, cluster.nodes[1].url, run_name)
    learner, (actor,) = crew.at_work(1, "--log-level", "debug")
    generation = crew.books()["generation"]
    code, words = crew.status()
    assert (code, "ALARM" in words) == (0, False), words

    # when its slot goes to the other node, and stands between both for a while
    slot = cluster.begin(crew.keys.stats, 0, 1)
    cluster.carry(slot, 0, 1, 3)
    for program in (learner, actor):
        program.says("cannot take commands now")
    while cluster.carry(slot, 0, 1):
        pass
    cluster.settle(slot, 0, 1)

    # then training goes on there, once the learner has brought its functions
    learner.says("OPENING THE RUN AGAIN")
    crew.goes_on()
    with cluster.nodes[1].client() as operator:
        assert operator.exists(crew.keys.stats)

    # and when it goes back, where they are already, it goes on at once
    cluster.move(crew.keys.stats, 1, 0)
    crew.goes_on()
    crew.unharmed(learner, actor)
    assert learner.output.count("OPENING THE RUN AGAIN") == 1
    assert crew.ends_well()["generation"] == generation
    blocks = trained([learner])
    assert len(blocks) == len(set(blocks))


@pytest.mark.fault(54)
@pytest.mark.processes
@pytest.mark.full
def test_training_goes_on_at_the_replica_of_a_node_that_was_killed(
    programs: Programs, tmp_path: Path, run_name: str
) -> None:
    # given a run at work at a node with a replica, whose programs were given another node
    with OwnCluster(tmp_path, 4) as cluster:
        cluster.replicate(0, 3)
        crew = Crew(programs, cluster.nodes[1].url, run_name)
        learner, (actor,) = crew.at_work(1, "--log-level", "debug")

        # when it is killed
        cluster.nodes[0].stop(signal.SIGKILL)

        # then training goes on at the replica, once the cluster has made it a node of its own
        crew.goes_on()
        crew.unharmed(learner, actor)
        with cluster.nodes[3].client() as operator:
            assert operator.role()[0] == b"master"
            assert operator.exists(crew.keys.stats)
        crew.ends_well()
        blocks = trained([learner])
        assert len(blocks) == len(set(blocks))


# What impala-train says to its user.


@pytest.mark.fault(54)
@pytest.mark.processes
def test_what_is_shown_to_the_user_leads_to_the_node_of_the_run(
    programs: Programs, cluster: OwnCluster, run_name: str
) -> None:
    # given
    train = programs.start(
        *("impala-train", "--run", run_name, "--redis-url", cluster.nodes[1].url),
        *("--stop-at-return", "none", "--no-report"),
    )

    # then
    words = train.says("all of it:")
    assert f"redis-cli -p {cluster.nodes[0].port} LLEN" in words
    train.send(signal.SIGTERM)
    assert train.code() == 130
