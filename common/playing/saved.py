"""Spec and weights of a run: from its directory, from one checkpoint, or from the live run."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.errors import (
    CheckpointError,
    MessageRefused,
    RunMissing,
    SpecMismatch,
    printable,
)
from impala_redis.common.normalizing import value_scales
from impala_redis.common.records import checkpoint
from impala_redis.common.records.checkpoint import Checkpoint
from impala_redis.common.records.rundir import RUNS
from impala_redis.common.run.saved_spec import read_saved_spec
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.address import has_password, with_password
from impala_redis.common.server.password import password_in

log = logging.getLogger(__name__)


def place_of(run: str | Path) -> Path:
    """The run directory or checkpoint that a user names: a path, or NAME for runs/NAME."""
    path = Path(run).expanduser()
    inside = RUNS / path
    is_name = len(path.parts) == 1 and not path.exists()
    return inside if is_name and inside.exists() else path


def from_live_run(redis_url: str, run: str) -> tuple[RunSpec, VersionedWeights]:
    """Spec and weights as a learner has published them.

    Raises RunMissing: there are none. Raises SpecMismatch: they cannot be read.
    """
    # Late: who reads a file needs no client of Redis.
    from impala_redis.common.acting.weights import unpack_reply
    from impala_redis.common.transport.monitor import MonitorLink

    link = MonitorLink(redis_url, run, "eval")
    try:
        link.require("impala-eval")
        spec_reply, weights_reply = link.read_spec(), link.read_weights()
    finally:
        link.close()
    if spec_reply is None or weights_reply is None:
        raise RunMissing(
            f"there is no run {run!r} on this server; name another run, or a checkpoint on disk"
        )
    spec = RunSpec.from_json(spec_reply.json)
    try:
        return spec, unpack_reply(weights_reply, spec)
    except MessageRefused as error:
        raise SpecMismatch(f"the weights of {run!r} do not fit its spec: {error}") from error


def from_checkpoint(path: Path) -> tuple[RunSpec, VersionedWeights]:
    """Spec and weights of a checkpoint, or of a run directory's newest.

    The weights are the mean over the last updates if there is one: the last may be a bad one.

    Their baselines are values themselves, also where the learner's are normalised by PopArt, and
    the spec says so. Raises CheckpointError, or SpecMismatch if a newer version made it.
    """
    saved = checkpoint.load(path)
    spec = read_saved_spec(saved.facts, saved.path)
    version, weights, *rest = weights_in(saved, spec)
    try:
        scales = value_scales.statistics_in(saved.tensors, spec.num_tasks)
        (values,) = value_scales.refitted([weights], was=scales, now={})
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{printable(saved.path)} lacks or garbles {error}") from error
    return replace(spec, popart=False), VersionedWeights(version, values, *rest)


def weights_in(saved: Checkpoint, spec: RunSpec) -> VersionedWeights:
    """The weights in a checkpoint of that spec, their mean if there is one.

    Raises CheckpointError: they are not those of the spec's network.
    """
    weights = {}
    kind = "averaged" if saved.has_averaged else "model"
    kinds = dict.fromkeys(spec.parameter_shapes(), kind)
    for name, shape in spec.weight_shapes().items():
        saved_as = f"{kinds.get(name, 'model')}.{name}"  # statistics have no mean
        tensor = saved.tensors.get(saved_as)
        if tensor is None or tensor.shape != shape:
            raise CheckpointError(
                f"{printable(saved.path)} has no {saved_as} of shape {list(shape)}"
            )
        weights[name] = tensor.astype(np.float32)
    return VersionedWeights(saved.facts.get("version", 0), weights)


def task_number(spec: RunSpec, task: str | None) -> int:
    """The number of the task of that name, whose values are asked for.

    Raises ValueError: there is none, or none is named of several; or the weights say no values.
    """
    if spec.popart:
        raise ValueError(
            "a live run with --popart does not tell the scale of its values; load its run "
            "directory instead"
        )
    names = [one.name for one in spec.tasks]
    if task is None and len(names) < 2:
        return 0
    if task not in names:
        there = f"one of {', '.join(names)}" if names else "none, since the run has no tasks"
        raise ValueError(f"the task is {task!r}; give task= {there}")
    return names.index(task)


def with_password_in(url: str, file: str | Path | None) -> str:
    """The address with the password in a file, if there is one. Raises ConfigError."""
    if file is None or has_password(url):
        return url
    password = password_in(Path(file))
    if password.others_read:
        log.warning("every user of this machine can read the password file %s", file)
    return with_password(url, password.text)
