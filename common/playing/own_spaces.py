"""Gymnasium's spaces of a run's environment, without making the environment where that can be."""

from collections.abc import Collection

from impala_redis.common.encoding.actions import action_spec
from impala_redis.common.encoding.fitting import Space
from impala_redis.common.encoding.observations import observation_spec
from impala_redis.common.encoding.space_text import spaces_in
from impala_redis.common.errors import SpecMismatch
from impala_redis.common.run.spec import RunSpec


def spaces_of(spec: RunSpec, env_modules: Collection[str]) -> tuple[Space, Space]:
    """The observation and the action space of one environment of the run.

    A run that was begun before 0.2 does not tell them, nor one whose tasks leave no room for them:
    then its environment is made once, with the run's arguments and wrappers.

    Args:
      spec: of the run.
      env_modules: modules, or files of modules, that the environment and its wrappers may be
        made by.

    Raises SpecMismatch: they are not those that the run was trained with. Raises ConfigError:
    nobody has named the module of the environment or of a wrapper. Raises UnsupportedEnvironment:
    it cannot be made.
    """
    observation, action = spaces_in(spec.spaces or _asked(spec, env_modules))
    action_here = action_spec(spec.env, action)
    masked = action_here if spec.observation.mask else None
    found = observation_spec(spec.env, observation, spec.observation.frame_stack, masked)
    if difference := spec.other_spaces(found, action_here):
        raise SpecMismatch(
            f"{spec.env} has other spaces here than the run was trained with: {difference}; "
            "install the version of it that the learner had"
        )
    return observation, action


def _asked(spec: RunSpec, env_modules: Collection[str]) -> str:
    """The text of the spaces that the environment itself has."""
    # Late: they import environments, and a run that tells its spaces needs none.
    from impala_redis.common.envs.trust import check_environment
    from impala_redis.common.envs.vector import VectorEnvironment

    check_environment(spec, env_modules, "to env_modules:")
    env, variant = spec.worlds[0]  # all tasks have the same spaces
    environment = VectorEnvironment(
        env, 1, frame_stack=spec.observation.frame_stack, variant=variant
    )
    environment.close()
    if not environment.spaces:
        raise SpecMismatch(
            f"the spaces of {spec.env} have no form that can be written down; play it with "
            "impala-eval"
        )
    return environment.spaces
