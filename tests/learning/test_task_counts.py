"""What a learner of several tasks counts of each: frames, mean returns and the score."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grouping.companions import Companions, cut, some_batch
from updates import figures_after, make_data

from impala_redis.common.blocks.trajectory import Episode
from impala_redis.common.errors import CheckpointError
from impala_redis.common.feeding.batch import Batch, Part
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.records import checkpoint
from impala_redis.common.records.window import Played
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec

TASKS = [
    {"name": "near", "env": "Near-v0", "random": 0.0, "reference": 10.0},
    {"name": "far", "env": "Far-v0", "random": -1.0, "reference": 1.0},
]
COLUMNS = 4  # of a batch


def run_of_tasks(tasks: list[dict[str, Any]] = TASKS) -> tuple[RunSpec, Config]:
    values = {"hidden_sizes": [8], "unroll_length": 4, "batch_size": COLUMNS, "tasks": tasks}
    config = Config().replace(values | {"total_frames": 1000, "reward_clipping": "none"})
    return make_spec("test", config, ObservationSpec((2,), "float32"), discrete(3)), config


def learner_of(spec: RunSpec, config: Config) -> Learner:
    return Learner(config, TorchEngine(spec, config))


def batch_of(spec: RunSpec, seed: int, returns: dict[int, float]) -> Batch:
    """A batch of columns that play tasks 0, 1, 0, 1; of each task's returns sixty episodes ended.

    The columns are of two actors, who have two environments each.
    """
    batch = make_data(spec, seed, size=COLUMNS)
    batch.rows.mask[0] = True
    batch.rows.tasks[0, :, 0] = [0, 1, 0, 1]
    batch.frames = batch.rows.frames
    ended = [Episode(mean, 5, task) for task, mean in returns.items() for _ in range(60)]
    batch.blocks = [
        Played(("a", 1), 2, True, ended, tasks=(0, 1)),
        Played(("b", 1), 2, True, ended, tasks=(0, 1)),
    ]
    batch.parts = [Part(("a", 1), slice(0, 2), (0, 1)), Part(("b", 1), slice(2, 4), (0, 1))]
    return batch


def steps_of(batch: Batch, columns: slice) -> int:
    return int(batch.rows.mask[:, columns].sum())


def test_frames_returns_and_the_score_are_counted_by_task() -> None:
    # given
    spec, config = run_of_tasks()
    learner = learner_of(spec, config)
    first, later = batch_of(spec, 0, {0: 5.0}), batch_of(spec, 1, {1: 2.0})

    # when one task has ended a hundred episodes
    learner.update(first)
    assert learner.window.mean_returns == [5.0, None]
    assert learner.score is None

    # and then the other one, whose return is beyond the reference
    learner.update(later)

    # then
    assert learner.window.mean_returns == [5.0, 2.0]
    assert learner.window.mean_return == 3.5
    assert learner.score == (0.5 + 1.0) / 2
    near = sum(steps_of(batch, slice(0, None, 2)) for batch in (first, later))
    far = sum(steps_of(batch, slice(1, None, 2)) for batch in (first, later))
    assert learner.task_frames.tolist() == [near, far]
    assert learner.frames == near + far


def test_replayed_columns_and_those_of_blocks_that_were_left_out_are_no_frames() -> None:
    # given a batch whose first column is replayed, and whose last block allows no finite step
    spec, config = run_of_tasks()
    learner = learner_of(spec, config)
    batch = batch_of(spec, 0, {})
    batch.replayed, batch.parts[0] = 1, Part(("a", 1), slice(1, 2), (1,))
    batch.frames = steps_of(batch, slice(1, None))
    batch.rows.rewards[0, 2:] = np.inf

    # when
    learner.update(batch)

    # then
    assert learner.task_frames.tolist() == [0, steps_of(batch, slice(1, 2))]
    assert learner.frames == learner.task_frames.sum()


def test_a_resumed_run_goes_on_with_the_counts_of_each_task(tmp_path: Path) -> None:
    # given
    spec, config = run_of_tasks()
    learner = learner_of(spec, config)
    learner.update(batch_of(spec, 0, {0: 5.0, 1: 0.5}))
    checkpoint.save(tmp_path, 1, *learner.state(), keep=1)

    # when
    resumed = learner_of(spec, config)
    resumed.restore(checkpoint.load(tmp_path))

    # then
    assert resumed.window.mean_returns == [5.0, 0.5]
    assert resumed.window.episodes == learner.window.episodes
    assert resumed.task_frames.tolist() == learner.task_frames.tolist()
    assert resumed.score == learner.score


@pytest.mark.parametrize(
    "garbled",
    [
        {"returns": [1.0] * 100},
        {"returns": [[1.0]]},
        {"returns": [[1.0], ["x"]]},
        {"task_frames": None},
        {"task_frames": [1]},
        {"task_frames": [1, -1]},
        {"task_frames": [1, 2**64]},
        {"task_frames": [1, "x"]},
    ],
)
def test_garbled_counts_of_tasks_are_refused(tmp_path: Path, garbled: dict[str, Any]) -> None:
    # given
    spec, config = run_of_tasks()
    tensors, facts = learner_of(spec, config).state()
    checkpoint.save(tmp_path, 1, tensors, facts | garbled, keep=1)

    # when / then
    with pytest.raises(CheckpointError, match="lacks or garbles"):
        learner_of(spec, config).restore(checkpoint.load(tmp_path))


def test_one_task_has_a_score_and_the_checkpoint_of_a_run_without_tasks() -> None:
    # given
    (spec, config), (plain, plain_config) = run_of_tasks(TASKS[:1]), run_of_tasks([])
    learner, without = learner_of(spec, config), learner_of(plain, plain_config)

    # when
    for seed in range(2):
        figures_after(learner, make_data(spec, seed, size=COLUMNS))
        figures_after(without, make_data(plain, seed, size=COLUMNS))

    # then
    assert learner.state()[1] == without.state()[1]
    assert learner.task_frames.tolist() == [learner.frames]
    assert learner.score == (learner.window.mean_returns[0] or 0.0) / 10
    assert without.score is None


def test_all_learners_of_a_group_count_the_same_as_one() -> None:
    # given
    spec, config = run_of_tasks()
    one, group = learner_of(spec, config), Companions(spec, config)
    batch = some_batch(spec, 0, COLUMNS)
    batch.rows.tasks[0, :, 0] = [0, 1, 1, 0]
    ended = [Episode(0.5, 5, 0)] * 60
    batch.blocks = [
        Played((f"a{column}", 1), 1, True, ended, tasks=(int(task),))
        for column, task in enumerate(batch.rows.tasks[0, :, 0])
    ]
    parts = cut(batch, 2)

    # when
    figures_after(one, batch)
    group.update(parts)

    # then
    for learner in group.learners:
        assert learner.task_frames.tolist() == one.task_frames.tolist()
        assert learner.window.mean_returns == one.window.mean_returns == [0.5, 0.5]
        assert learner.score == one.score == pytest.approx((0.05 + 0.75) / 2)
