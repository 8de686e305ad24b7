"""The chaos run: its schedule is the seed's, its verdict is good, and it bites."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chaos import ranks
from chaos.faults import Faults
from chaos.oracle import audit
from chaos.schedule import KINDS, KINDS_WITH_SENTINELS, faults
from chaos.servers import free_port
from support import ROOT


def storm(*options: str, timeout_s: float) -> tuple[int, str, dict[str, Any]]:
    """Exit code, words and figures of a chaos run."""
    done = subprocess.run(
        [sys.executable, "-m", "chaos.run", *options],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    words = done.stdout + done.stderr
    line = next((line for line in words.splitlines() if line.startswith("{")), "{}")
    return done.returncode, words, json.loads(line)


def test_the_same_seed_draws_the_same_faults_and_another_seed_others() -> None:
    def first(seed: int) -> list[Any]:
        return list(itertools.islice(faults(seed), 100))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_every_kind_of_fault_comes_before_any_comes_twice() -> None:
    drawn = [fault.kind for fault in itertools.islice(faults(3), len(KINDS))]
    assert sorted(drawn) == sorted(KINDS)


def test_behind_sentinels_there_are_fail_overs_and_each_kind_can_be_done() -> None:
    drawn = [fault.kind for fault in itertools.islice(faults(3, (), KINDS_WITH_SENTINELS), 9)]
    assert sorted(drawn) == sorted(KINDS_WITH_SENTINELS)
    assert "fail_over" in drawn
    for kind in KINDS | KINDS_WITH_SENTINELS:
        assert callable(getattr(Faults, f"_{kind}"))


def test_faults_can_be_chosen() -> None:
    drawn = {fault.kind for fault in itertools.islice(faults(3, ["kill_actor", "cut_network"]), 50)}
    assert drawn == {"kill_actor", "cut_network"}


def test_the_audit_finds_what_was_trained_on_twice_or_out_of_order() -> None:
    def log(*sequences: int) -> str:
        return "\n".join(f"12:00:00 learner: trained on a#7:{n}" for n in sequences)

    assert audit([log(1, 2), log(3)]) == (3, [], [])
    assert audit([log(1, 2), log(2, 3)]) == (3, ["a#7:2"], [])
    assert audit([log(1, 3, 2)]) == (3, [], ["a#7:2"])


def test_each_server_has_a_port_of_its_own_that_the_kernel_gives_to_no_connection() -> None:
    served = Path("/proc/sys/net/ipv4/ip_local_port_range")  # where Linux tells it
    first = int(served.read_text().split()[0]) if served.exists() else 32_768
    if first < 32_768:
        pytest.skip("this machine serves connections from lower ports than usual")
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert max(ports) < first


@pytest.mark.fault(52)
def test_a_storm_over_a_group_of_learners_loses_nothing_unseen(chaos_seed: int) -> None:
    offences, counts = ranks.storm(500, chaos_seed)
    assert offences == [], counts
    assert min(counts[name] for name in (*ranks.WEIGHTS, "replies lost")) > 0, counts


@pytest.mark.fault(52)
def test_the_verdict_on_a_group_is_bad_when_the_cursor_of_a_rank_is_broken() -> None:
    offences, _ = ranks.storm(500, 3, is_broken=True)
    assert offences


@pytest.mark.processes
@pytest.mark.fault(52)
@pytest.mark.timeout(280)
@pytest.mark.parametrize("policy", ["drop-oldest", pytest.param("block", marks=pytest.mark.full)])
def test_a_storm_loses_nothing_unseen(chaos_seed: int, policy: str) -> None:
    options = ("--minutes", "0.5", "--seed", str(chaos_seed), "--queue-policy", policy)
    code, words, figures = storm(*options, timeout_s=270)
    assert code == 0, words
    assert figures["residual"] == figures["trained on twice"] == 0
    assert figures["faults"] >= 3
    assert figures["consumed"] > 100
    assert figures["solved after the storm, s"] is not None


@pytest.mark.processes
@pytest.mark.full
@pytest.mark.fault(53)
@pytest.mark.timeout(400)
def test_a_storm_with_fail_overs_loses_nothing_unseen(chaos_seed: int) -> None:
    options = ("--minutes", "1.5", "--seed", str(chaos_seed), "--sentinels")
    code, words, figures = storm(*options, timeout_s=390)
    assert code == 0, words
    assert figures["residual"] == figures["trained on twice"] == 0
    assert figures["fail_over"] > 0


@pytest.mark.processes
@pytest.mark.full
@pytest.mark.fault(52)
@pytest.mark.timeout(900)
def test_a_long_storm_leaves_memory_and_open_files_as_they_were(chaos_seed: int) -> None:
    code, words, figures = storm("--minutes", "6", "--seed", str(chaos_seed), timeout_s=890)
    assert code == 0, words
    assert "memory of actor steady" in figures


@pytest.mark.processes
@pytest.mark.parametrize(
    ("mechanism", "kind", "finding"),
    [
        ("dedupe", "drop_replies_to_actors", "trained on twice"),
        ("commit", "drop_replies_to_learner", "blocks"),
        ("fencing", "take_over", "not what was claimed"),
    ],
)
@pytest.mark.timeout(200)
@pytest.mark.full
@pytest.mark.fault(52)
def test_the_verdict_is_bad_when_a_mechanism_is_broken(
    mechanism: str, kind: str, finding: str
) -> None:
    options = ("--minutes", "0.4", "--faults", kind, "--break", mechanism)
    code, words, figures = storm(*options, timeout_s=190)
    assert code == 1, words
    assert "VERDICT  bad" in words
    assert any(finding in offence for offence in figures["offences"]), words
