"""What rank 0 tells the other learners of a group, and the part that each of them takes."""

import itertools
import json

import pytest
from companions import run_of

from impala_redis.common.errors import ConfigError, SpecMismatch
from impala_redis.common.grouping.facts import Facts, facts_in, part_of
from impala_redis.common.run.config import Config


def test_the_run_arrives_as_rank_0_has_opened_it() -> None:
    # given settings and names with any letters
    spec, config = run_of(batch_size=12, replay_share=0.5, lstm_size=8)
    config = config.replace({"env": 'mäh:"A"-v0', "wrapper": ["a:B", "c:D"], "discounting": 0.1})
    facts = Facts(config, spec, 'host:1#"ö"')

    # then
    assert facts_in(facts.packed()) == facts


@pytest.mark.parametrize(
    "told",
    [
        *(b"", b"\xff", b"[]", b"3", b"[" * 100_000, b'{"config": "", "spec": "{}"}'),
        b'{"config": "from_the_future = 1", "spec": "{}", "holder": ""}',
        b'{"config": "", "spec": "[]", "holder": ""}',
    ],
)
def test_what_another_version_tells_is_refused_in_a_sentence(told: bytes) -> None:
    with pytest.raises((ConfigError, SpecMismatch)) as refused:
        facts_in(told)
    assert "\n" not in str(refused.value)


def test_settings_of_another_version_are_named() -> None:
    spec, config = run_of()
    told = json.loads(Facts(config, spec, "").packed())
    told["config"] = told["config"].replace("batch_size", "batch_width")
    with pytest.raises(ConfigError, match="batch_width"):
        facts_in(json.dumps(told).encode())


def test_the_parts_of_all_learners_are_the_whole_batch() -> None:
    # given a batch of 24, of which 12 are replayed
    whole = Config().replace({"batch_size": 24, "replay_share": 0.5, "replay_capacity": 1001})

    # then
    for ranks in (1, 2, 3, 4, 6, 12):
        part = part_of(whole, ranks)
        assert part.training.batch_size * ranks == 24
        assert part.replayed_columns * ranks == 12
        assert 1001 <= part.training.replay_capacity * ranks < 1001 + ranks
        values = part.values() | {
            key: whole.values()[key] for key in ("batch_size", "replay_capacity")
        }
        assert values == whole.values()


def test_replayed_trajectories_that_can_be_divided_are_divided_exactly() -> None:
    for batch_size, share, ranks in itertools.product(range(5, 33), (0.1, 0.3, 0.77, 0.99), (2, 3)):
        changes = {"batch_size": ranks * batch_size, "replay_share": share}
        whole = Config().replace({**changes, "replay_capacity": 1000})
        if whole.replayed_columns % ranks == 0:
            part = part_of(whole, ranks)
            assert part.replayed_columns * ranks == whole.replayed_columns


@pytest.mark.parametrize(
    ("ranks", "remedy"),
    [
        (5, "--batch-size a multiple of 5"),
        (8, "the 12 replayed trajectories .* among 8 learners; change --replay-share"),
        (24, "the 12 replayed trajectories .* among 24 learners"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_the_remedy(ranks: int, remedy: str) -> None:
    whole = Config().replace({"batch_size": 24, "replay_share": 0.5, "replay_capacity": 1000})
    with pytest.raises(ConfigError, match=remedy):
        part_of(whole, ranks)
