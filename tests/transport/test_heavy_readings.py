"""What others have written is read in little time and memory, however much there is of it."""

import json
import re
import subprocess
import sys

import pytest
import redis
from full import in_full

from impala_redis.common.local.embedded import EmbeddedServer
from impala_redis.common.transport import monitor as monitor_module
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.transport.monitor import MOST_BYTES, MonitorLink, residual
from impala_redis.common.transport.replies import HEARTBEAT
from impala_redis.workers.overview import rows
from support import ROOT, Programs

pytestmark = pytest.mark.fault(62)

LARGE = 100 * 2**20

# Reads a run, and prints how long it took in seconds and by how much the process grew in MB.
READ = """
import json, resource, sys, time
from impala_redis.common.transport.monitor import MonitorLink
from impala_redis.common.transport.situation import summary
from impala_redis.workers.overview import as_text
link = MonitorLink(sys.argv[1], sys.argv[2], "test")
link.read_memory()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, began = peak(), time.perf_counter()
first = link.read()
status = summary([first, link.read()])
text = as_text("r", status)
print(json.dumps([(time.perf_counter() - began) / 2, peak() - before, len(text)]))
"""


def measured(url: str, run: str) -> tuple[float, float, int]:
    """Seconds of a reading, MB by which the reader grew, characters of what it shows."""
    command = [sys.executable, "-c", READ, url, run]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    took_s, grown_mb, length = json.loads(done.stdout)
    return took_s, grown_mb, length


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("actor:a", "host"),
        ("stats", "anything"),
        ("weights", "version"),
        *in_full(
            ("actor:a", "anything"),
            ("epoch", "learner:frames"),
            ("stats", "produced"),
            ("spec", "json"),
        ),
    ],
)
def test_a_text_of_100_mb_is_not_read(
    learner: LearnerLink,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    name: str,
    field: str,
) -> None:
    # given a run at work, and somebody who writes so long a text
    learner.renew({"frames": 5.0})
    learner.publish(1, b"weights")
    actor.beat("a", {"host": "here", "frames": 7}, 60.0)
    operator.hset(actor.keys.prefix + name, field, bytes(LARGE))

    # when it is read
    took_s, grown_mb, length = measured(monitor.url, monitor.run)
    operator.unlink(actor.keys.prefix + name)

    # then
    assert took_s < 1.0
    assert grown_mb < 50
    assert length < 3000


def test_of_a_long_text_is_told_how_long_it_is(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink
) -> None:
    # given a text as long as may be, and a longer one
    actor.beat("a", {"host": "h" * MOST_BYTES, "pid": "7" * (MOST_BYTES + 1)}, 60.0)

    # when / then
    assert monitor.read_actors() == {"a": {"host": "h" * MOST_BYTES, "pid": "(201 bytes)"}}


def test_a_lease_of_100_mb_is_cut(
    learner: LearnerLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    operator.set(learner.keys.lock, bytes(LARGE), px=60_000)
    took_s, grown_mb, length = measured(monitor.url, monitor.run)
    operator.unlink(learner.keys.lock)
    assert took_s < 1.0
    assert grown_mb < 50
    assert length < 3000


def test_a_key_with_a_name_of_100_mb_is_counted_and_not_read(
    learner: LearnerLink, actor: ActorLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    # given
    actor.beat("a", {"frames": 1}, 60.0)
    name = actor.keys.actor("b" * LARGE)
    operator.hset(name, "frames", 1)

    # when
    took_s, grown_mb, length = measured(monitor.url, monitor.run)
    reading = monitor.read()
    operator.unlink(name)

    # then
    assert (list(reading["actors"]), reading["actors_left_out"]) == (["a"], 1)
    assert took_s < 2.0
    assert grown_mb < 50
    assert length < 3000


def test_of_a_crowd_of_heartbeats_so_many_are_read_and_the_others_counted(
    learner: LearnerLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    monkeypatch.setattr(monitor_module, "MOST_ACTORS", 300)
    pipe = operator.pipeline(transaction=False)
    for number in range(1000):
        pipe.hset(learner.keys.actor(f"a{number}"), "frames", number)
    pipe.execute()

    # when
    reading = monitor.read()

    # then
    assert (len(reading["actors"]), reading["actors_left_out"]) == (300, 700)
    assert all(figures == {"frames": name[1:]} for name, figures in reading["actors"].items())
    assert "; 700 more" in dict(rows("r", reading | {"bottleneck": ""}))["actors"]
    assert monitor_module.SCANNED_AT_ONCE >= 1000


def test_a_server_with_very_many_keys_is_looked_through_for_a_bounded_time(
    learner: LearnerLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    pipe = operator.pipeline(transaction=False)
    for number in range(5000):
        pipe.set(f"foreign-{monitor.run}-{number}", 1, px=60_000)
    pipe.execute()
    monkeypatch.setattr(monitor_module, "LOOK_S", 0.0)

    # when
    reading = monitor.read()

    # then it is said; whoever must know all looks at all
    assert reading["looked_at_all"] is False
    assert "only some were looked at" in dict(rows("r", reading | {"bottleneck": ""}))["actors"]
    assert monitor._read_crowd(None).is_all
    monkeypatch.undo()
    assert monitor.read()["looked_at_all"] is True


def test_of_very_many_figures_none_is_read_but_the_epoch(
    learner: LearnerLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    operator.hset(learner.keys.epoch, mapping={f"learner:{n}": n for n in range(2000)})
    found = monitor.read_learner()
    assert (found["figures"], found["epoch"]) == ({}, 1)


def test_a_figure_with_a_name_of_100_kb_is_not_read(
    learner: LearnerLink, monitor: MonitorLink, operator: redis.Redis
) -> None:
    learner.renew({"frames": 5.0})
    operator.hset(learner.keys.epoch, "learner:" + "x" * 100_000, 1)
    assert set(monitor.read_learner()["figures"]) == {"frames", "epoch"}


@pytest.mark.parametrize(
    "name",
    ["stats", "trajectories", "inflight", "lock", "epoch", "weights", "stats consumed"],
)
def test_a_broken_key_is_named(
    learner: LearnerLink,
    actor: ActorLink,
    monitor: MonitorLink,
    operator: redis.Redis,
    name: str,
) -> None:
    # given
    actor.push("a#1", 1, b"block", 4)
    key = actor.keys.prefix + name
    if " " in name:
        operator.hset(*key.split(), "x")
    else:
        operator.unlink(key)
        operator.rpush(key, "x") if name == "lock" else operator.set(key, "x")

    # when
    reading = monitor.read()

    # then
    assert reading["broken"] == [key]
    told = dict(reversed(rows("r", reading | {"bottleneck": ""})))["ALARM"]
    assert told.startswith(("the books do not balance", f"somebody has broken {key}"))
    learner.open()
    again = monitor.read()
    assert (again["broken"], residual(again["books"])) == ([], 0)


@pytest.mark.processes
def test_status_tells_a_broken_counter_in_a_line(
    programs: Programs, any_server: EmbeddedServer, learner: LearnerLink, operator: redis.Redis
) -> None:
    # given
    operator.hset(learner.keys.stats, "produced", "x")
    variables = {"IMPALA_REDIS_URL": any_server.url, "IMPALA_RUN": learner.run}

    # when
    code, output = programs.run("impala-status", **variables)

    # then
    assert code == 0, output
    assert f"somebody has broken {learner.keys.stats} produced; a learner mends it" in output


def test_the_heartbeat_has_the_fields_that_are_read() -> None:
    # given what an actor says of itself
    source = (ROOT / "workers" / "actor.py").read_text(encoding="utf-8")
    said = re.findall(r'^            "(\w+)": ', source.partition("def _figures")[2], re.M)
    courier = (ROOT / "common" / "acting" / "courier.py").read_text(encoding="utf-8")
    counted = re.findall(r'^                "(\w+)": ', courier.partition("def books")[2], re.M)

    # then
    assert set(HEARTBEAT) == {*said, *counted}
