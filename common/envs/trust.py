"""Whether an environment that only a run has named may be made here."""

from collections.abc import Collection

from impala_redis.common.envs.making import is_known
from impala_redis.common.games.envpool_vector import is_named
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.settings.env_id import name_of
from impala_redis.common.user_code.arguments import check_arguments
from impala_redis.common.user_code.modules import check_trusted


def check_environment(
    spec: RunSpec, trusted: Collection[str], option: str = "--env-module"
) -> None:
    """Refuses environments and wrappers of modules that only the run has named.

    Arguments by which the run may choose what is imported or read are refused, too.

    Args:
      spec: the run's.
      trusted: modules, files of modules, or ids, that the user has named.
      option: that names these, for messages.

    Raises ConfigError.
    """
    for wrapper in spec.wrapper:
        check_trusted(wrapper, trusted, "wrapper", option)
    for env, variant in spec.worlds:
        if not is_named(env):  # of EnvPool, which imports no module of that name but its own
            check_trusted(env, trusted, "environment", option)
        check_arguments(env, variant.env_kwargs, is_known(name_of(env)), trusted, option)
