"""What a learner begins with: nothing, its own checkpoint, or the weights of another run."""

import dataclasses
import logging
from typing import NamedTuple

from impala_redis.common.errors import SpecMismatch, printable
from impala_redis.common.learning.learner import Learner
from impala_redis.common.playing.saved import place_of
from impala_redis.common.records import checkpoint
from impala_redis.common.records.checkpoint import Checkpoint
from impala_redis.common.records.rundir import RunDirectory
from impala_redis.common.run.architecture import NetworkSpec
from impala_redis.common.run.differences import differences
from impala_redis.common.run.saved_spec import read_saved_spec
from impala_redis.common.run.spec import RunSpec

log = logging.getLogger(__name__)

# What the weights of two runs must have in common: all that the network is.
_NETWORK = tuple(item.name for item in dataclasses.fields(NetworkSpec))


class Beginning(NamedTuple):
    """The run's spec, and the checkpoint that it begins with, if there is one."""

    spec: RunSpec
    own: Checkpoint | None = None  # of the run that is resumed
    other: Checkpoint | None = None  # of the run whose weights are taken

    @property
    def resumes(self) -> int:
        """How often the run has been resumed, now included."""
        return self.own.resumes + 1 if self.own else 0

    def begin(self, learner: Learner) -> None:
        """Brings a new learner to where it begins. Raises CheckpointError."""
        if self.own:
            learner.restore(self.own)
            log.info("resumed from %s: %d updates", self.own.path.name, learner.updates)
            if learner.evolving.generation:
                values = ", ".join(f"{key} {x:.3g}" for key, x in learner.evolving.now.items())
                log.info("goes on with what it has copied in a population: %s", values)
        elif self.other:
            learner.begin_from(self.other)
            log.info("begins with the weights in %s", printable(self.other.path))


class Saved(NamedTuple):
    """A checkpoint, and the spec in it."""

    checkpoint: Checkpoint
    spec: RunSpec


def saved_in(directory: RunDirectory) -> Saved | None:
    """The directory's newest checkpoint; None if there is none yet: then it is a new run.

    Raises CheckpointError, or SpecMismatch: a newer version made it.
    """
    if not directory.holds_a_checkpoint:
        log.warning("NOTHING TO RESUME in %s: starting a new run", directory.path)
        return None
    saved = checkpoint.load(directory.checkpoints)
    return Saved(saved, read_saved_spec(saved.facts, saved.path))


def resumed(spec: RunSpec, saved: Saved) -> Beginning:
    """Goes on from a checkpoint of this run. Raises SpecMismatch: it is of another one."""
    spec = _scaled_as(spec, saved.spec)
    if difference := spec.difference(saved.spec):
        raise SpecMismatch(
            f"{saved.checkpoint.path} is of another run: {difference}; resume with the settings "
            "it was made with, or give another --run-dir"
        )
    return Beginning(spec, own=saved.checkpoint)


def begun_from(spec: RunSpec, run: str) -> Beginning:
    """Begins with the weights of another run, whose network must be the same.

    Args:
      spec: of the new run.
      run: a run directory, a checkpoint, or NAME for runs/NAME.

    Raises CheckpointError: there is none. Raises SpecMismatch: its weights do not fit.
    """
    saved = checkpoint.load(place_of(run))
    found = read_saved_spec(saved.facts, saved.path)
    spec = _scaled_as(spec, found)
    here, there = ({name: getattr(one, name) for name in _NETWORK} for one in (spec, found))
    if difference := differences(here, there):
        raise SpecMismatch(
            f"the weights of {printable(run)} do not fit this run: {difference}; train with the "
            "network's settings of that run, in an environment of its spaces, or leave "
            "--init-from out"
        )
    return Beginning(spec, other=saved)


def _scaled_as(spec: RunSpec, found: RunSpec) -> RunSpec:
    """The spec with the scales that the weights were trained with."""
    return dataclasses.replace(spec, observation=spec.observation.scaled_as(found.observation))
