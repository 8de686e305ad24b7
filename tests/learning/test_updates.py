"""What the learners of an update have brought to it, together."""

from impala_redis.common.blocks.trajectory import Episode
from impala_redis.common.learning.updates import Share, blocks_of
from impala_redis.common.records.window import EpisodeWindow, Played


def test_an_actors_first_block_counts_before_its_later_one_whoever_brings_it() -> None:
    # given two blocks of one actor, whose first one the second learner has
    first, later = (
        Played(("a", 1), 1, begins, [Episode(episode_return, 5, 0)] * 60)
        for begins, episode_return in ((True, 1.0), (False, 2.0))
    )

    # when
    blocks = blocks_of([Share(5, [later]), Share(5, [first])])

    # then no episode counts as one whose start nobody saw
    window = EpisodeWindow()
    window.add(blocks, 0.0)
    assert blocks == [first, later]
    assert (window.returns.count(1.0), window.returns.count(2.0)) == (60, 40)
