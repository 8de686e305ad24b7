"""Brings an engine and the running figures to a state that was saved: here, or by another run."""

from collections.abc import Callable

from impala_redis.common.learning.engine import Engine
from impala_redis.common.normalizing import value_scales
from impala_redis.common.normalizing.normalization import Normalization
from impala_redis.common.records.checkpoint import Checkpoint
from impala_redis.common.run.groups import LossSettings


def checked(
    checkpoint: Checkpoint, engine: Engine, normalization: Normalization, settings: LossSettings
) -> Callable[[], None]:
    """Checks a whole state; the call that it returns brings engine and running figures to it.

    The check raises CheckpointError, KeyError and ValueError. The call raises ValueError where
    PopArt's values would not be finite. Then nothing has changed.
    """
    shapes = {name: shape for name, _, shape in engine.layout}
    parameters = averaged = checkpoint.fitting("model", shapes)
    if checkpoint.has_averaged:
        averaged = checkpoint.fitting("averaged", shapes)
    slots = {name: array.shape for name, array in engine.slots().items()}
    optimizer = checkpoint.fitting("optimizer", slots)
    statistics = checkpoint.fitting("model", engine.spec.statistic_shapes())
    steps = checkpoint.facts["optimizer_steps"]
    was = value_scales.statistics_in(checkpoint.tensors, engine.spec.num_tasks)
    Normalization(engine.spec, settings).restore(checkpoint.tensors)

    def take() -> None:
        before = engine.popart()
        now = engine.load_popart(was)
        try:
            weights, mean = value_scales.refitted([parameters, averaged], was, now)
        except ValueError:
            engine.load_popart(before)
            raise
        engine.load(weights, mean, optimizer, steps)
        engine.load_statistics(statistics)
        normalization.restore(checkpoint.tensors)

    return take


def begin_from(checkpoint: Checkpoint, engine: Engine, normalization: Normalization) -> None:
    """Gives a fresh engine the weights and statistics of another run: their mean if there is one.

    Raises CheckpointError, KeyError and ValueError: they do not fit.
    """
    kind = "averaged" if checkpoint.has_averaged else "model"
    weights = checkpoint.fitting(kind, {name: shape for name, _, shape in engine.layout})
    statistics = checkpoint.fitting("model", engine.spec.statistic_shapes())
    was = value_scales.statistics_in(checkpoint.tensors, engine.spec.num_tasks)
    now = engine.load_popart(value_scales.begun_anew(was))
    (weights,) = value_scales.refitted([weights], was, now)
    engine.load(weights, weights, engine.slots(), 0)
    engine.load_statistics(statistics)
    normalization.restore(checkpoint.tensors)
