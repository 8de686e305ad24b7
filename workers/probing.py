"""An environment's spaces, found out in a process of its own of which nothing remains.

What a user's environment brings along stays out of the learner: threads, signal handlers, another
working directory, memory of a GPU. The process is started as

    python -m impala_redis.workers.probing ID FRAME_STACK VARIANT ONE_BY_ONE DESCRIPTOR

and writes one line of JSON to that descriptor; what the environment prints goes to standard error.
"""

import contextlib
import dataclasses
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

from impala_redis.common.envs.making import is_known
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import EXIT_INTERRUPTED, ConfigError, UnsupportedEnvironment
from impala_redis.common.local import children
from impala_redis.common.run.differences import differences
from impala_redis.common.run.groups import EnvironmentSettings
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec
from impala_redis.common.run.spaces_json import action_from, observation_from
from impala_redis.common.settings.variant import AS_REGISTERED, Variant
from impala_redis.common.tasks.worlds import World
from impala_redis.workers import stopping
from impala_redis.workers.pace import LONG_CALL_S, say

# For the environment to be made, and to be closed.
MADE_WITHIN_S, CLOSED_WITHIN_S = 300.0, 2.0
POLL_S = 0.02
# The line with the spaces is no longer: a run's spec, which holds them, is shorter.
MOST_ANSWER_BYTES = 1_000_000
_FORGED = "its code has written to a descriptor of ours, which was to tell the spaces"


class Spaces(NamedTuple):
    """The spaces of an environment: how observations and actions travel, and Gymnasium's own."""

    observation: ObservationSpec
    action: ActionSpec
    text: str  # of Gymnasium's (`common.encoding.space_text`)


def spaces_of(
    env_id: str,
    frame_stack: int,
    stop: stopping.StopFlag,
    variant: Variant = AS_REGISTERED,
    one_by_one: bool = False,
) -> Spaces:
    """The spaces of an environment. Raises UnsupportedEnvironment, or ConfigError: no such wrapper.

    With `one_by_one` they are those of its single form, which it must have then. Environments that
    come with Gymnasium, ALE or MiniGrid, or with us, are made here: it takes no time.
    """
    if is_known(env_id, variant):
        environment = VectorEnvironment(
            env_id, 1, frame_stack=frame_stack, variant=variant, one_by_one=one_by_one
        )
        environment.close()
        return Spaces(environment.observation, environment.action, environment.spaces)
    answers, writes = os.pipe()
    asked = (env_id, str(frame_stack), json.dumps(variant), json.dumps(one_by_one), str(writes))
    try:
        probe = subprocess.Popen(
            # -P: modules in the working directory must not be taken for ours.
            [sys.executable, "-P", "-m", __name__, *asked],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            pass_fds=(writes,),
            start_new_session=True,
            preexec_fn=children.tie_to_parent(signal.SIGKILL),
        )
    finally:
        os.close(writes)
    try:
        return _read(env_id, _answer(answers, env_id, probe, stop))
    finally:
        os.close(answers)
        _end(probe)


def spaces_of_all(
    environment: EnvironmentSettings, stop: stopping.StopFlag, without_mask: bool = False
) -> Spaces:
    """The spaces that the environments of all tasks have, or that of a run without tasks.

    Raises UnsupportedEnvironment: two tasks have different ones; and as `spaces_of`.
    """
    names = [task.name for task in environment.tasks] or [environment.env]
    found: dict[World, Spaces] = {}
    for name, world in zip(names, environment.worlds, strict=True):
        if without_mask:
            world = world._replace(variant=world.variant._replace(mask_from=""))
        if world in found:
            continue
        asked = (world.env, environment.frame_stack, stop, world.variant)
        found[world] = spaces = spaces_of(*asked, one_by_one=environment.env_processes > 0)
        first = next(iter(found.values()))
        here, there = (
            {"observation": one.observation, "action": one.action} for one in (first, spaces)
        )
        if difference := differences(here, there):
            raise UnsupportedEnvironment(
                f"the tasks {names[0]} (here) and {name} (there) cannot share a network: "
                f"{difference}; give tasks of the same spaces, or a --wrapper that makes them so"
            )
    return next(iter(found.values()))


def _answer(
    answers: int, env_id: str, probe: "subprocess.Popen[bytes]", stop: stopping.StopFlag
) -> dict[str, Any]:
    """The line that the process writes. Raises UnsupportedEnvironment: it writes none."""
    line, now = b"", time.monotonic()
    word_due, deadline = now + LONG_CALL_S, now + MADE_WITHIN_S
    while not line.endswith(b"\n"):
        if stop():
            raise SystemExit(EXIT_INTERRUPTED)
        if time.monotonic() > word_due:
            word_due = math.inf
            say(f"{env_id} is not made after {LONG_CALL_S:g} s: waiting for its constructor")
        if time.monotonic() > deadline:
            raise UnsupportedEnvironment(
                f"{env_id} hangs: it is not made after {MADE_WITHIN_S:g} s; look at its constructor"
            )
        has_ended = probe.poll() is not None
        can_be_read = bool(select.select([answers], [], [], POLL_S)[0])
        if not can_be_read and not has_ended:
            continue
        # A process that the environment has started may keep the pipe open after the end of ours.
        part = os.read(answers, 65_536) if can_be_read else b""
        if not part:
            raise UnsupportedEnvironment(f"{env_id} cannot be made: {_how_it_ended(probe)}")
        line += part
        if len(line) > MOST_ANSWER_BYTES:
            raise UnsupportedEnvironment(f"{env_id} cannot be made: {_FORGED}")
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnsupportedEnvironment(f"{env_id} cannot be made: {_FORGED}") from error
    return answer if isinstance(answer, dict) else {}


def _read(env_id: str, answer: dict[str, Any]) -> Spaces:
    """The spaces in an answer. Raises UnsupportedEnvironment: it is an error, or none of ours.

    Raises ConfigError: it is one of the settings.
    """
    if "refusal" in answer:
        refusal = ConfigError(str(answer["refusal"]))
        refusal.frames = str(answer.get("frames", ""))
        raise refusal
    if "error" in answer:
        error = UnsupportedEnvironment(str(answer["error"]))
        error.frames = str(answer.get("frames", ""))
        raise error
    if not {"observation", "action", "spaces"} <= answer.keys():
        raise UnsupportedEnvironment(f"{env_id} cannot be made: {_FORGED}")
    return Spaces(
        observation_from(answer["observation"]),
        action_from(answer["action"]),
        str(answer["spaces"]),
    )


def _how_it_ended(probe: "subprocess.Popen[bytes]") -> str:
    """What became of a process that ended without a word."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        code = probe.wait(CLOSED_WITHIN_S)
        if code < 0:
            return f"its code ended the process by the signal {signal.Signals(-code).name}"
        return f"its code ended the process with the exit code {code}"
    return "its code closed all files of the process"


def _end(probe: "subprocess.Popen[bytes]") -> None:
    """Ends the process once it has closed the environment, and all that it has started."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        probe.wait(CLOSED_WITHIN_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(probe.pid, signal.SIGKILL)
    probe.wait()


def main() -> None:
    """Makes the environment, writes its spaces or the error, and ends whatever it has left."""
    env_id, frame_stack, asked, one_by_one, descriptor = sys.argv[1:]
    env_kwargs, wrapper, *others = json.loads(asked)
    variant = Variant(env_kwargs, tuple(wrapper), *others)
    stopping.set_up_logging("warning", "learner")
    environment: VectorEnvironment | None = None
    answer: dict[str, Any]
    try:
        environment = VectorEnvironment(
            *(env_id, 1),
            frame_stack=int(frame_stack),
            variant=variant,
            one_by_one=json.loads(one_by_one),
        )
        answer = {
            "observation": dataclasses.asdict(environment.observation),
            "action": dataclasses.asdict(environment.action),
            "spaces": environment.spaces,
        }
    except UnsupportedEnvironment as error:
        answer = {"error": str(error), "frames": error.frames}
    except ConfigError as error:
        answer = {"refusal": str(error), "frames": error.frames}
    os.write(int(descriptor), json.dumps(answer).encode() + b"\n")
    if environment is not None:
        environment.close()
    os._exit(0)


if __name__ == "__main__":
    main()
