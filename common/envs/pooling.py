"""Which environments EnvPool plays: those that its name is given for, and levels of MiniGrid.

It steps all of them at once, by threads of its own, in the actor's process.
"""

import logging

from impala_redis.common.envs.wanted import Wanted
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.games import envpool_vector
from impala_redis.common.games.envpool_grid import GridPool
from impala_redis.common.games.envpool_vector import EnvPoolVector
from impala_redis.common.games.gridworld import is_gridworld
from impala_redis.common.settings import json_object
from impala_redis.common.settings.env_id import module_of, name_of
from impala_redis.common.user_code.modules import make_findable

log = logging.getLogger(__name__)


def findable(env_id: str) -> str:
    """The id without a path, its module findable; no module is looked for where EnvPool is named.

    Raises UnsupportedEnvironment: it names none, or its module's file is not there.
    """
    return env_id if envpool_vector.is_named(env_id) else make_findable(env_id)


def is_pooled(wanted: Wanted) -> bool:
    """Whether EnvPool plays them. Raises UnsupportedEnvironment.

    That is raised where EnvPool alone could play them, and single environments are asked for, or
    where it is installed and cannot be imported.
    """
    if is_gridworld(wanted.env_id):
        return not _why_minigrid(wanted)
    if not envpool_vector.is_named(wanted.env_id):
        return False
    if taker := _taker(wanted):
        raise UnsupportedEnvironment(
            f"EnvPool steps all of them at once, and {taker} takes single ones: leave that out, or "
            f"give --env {name_of(wanted.env_id)} if another package has it"
        )
    return True


def make_pool(wanted: Wanted) -> EnvPoolVector:
    """The environments, if EnvPool plays them.

    Raises UnsupportedEnvironment: it is missing, or has no such environment or arguments.
    """
    env_id, num_threads = wanted.env_id, wanted.num_threads or 1
    if is_gridworld(env_id):
        return GridPool(env_id, wanted.num_envs, num_threads)
    return EnvPoolVector(env_id, wanted.num_envs, num_threads, wanted.variant)


def left_to_others(wanted: Wanted) -> Wanted:
    """The same, where EnvPool does not play them: a level's id then says nothing of EnvPool.

    For a level a line in the log says why the package minigrid plays it.
    """
    if not is_gridworld(wanted.env_id):
        return wanted
    why = _why_minigrid(wanted)
    log.info("%s is played by the package minigrid: %s", wanted.env_id, why)
    if envpool_vector.is_named(wanted.env_id):
        return wanted._replace(env_id=name_of(wanted.env_id))
    return wanted


def _why_minigrid(wanted: Wanted) -> str:
    """Why the package minigrid plays a level; empty if EnvPool does."""
    env_id, variant = wanted.env_id, wanted.variant
    if taker := _taker(wanted):
        return f"{taker} takes single environments"
    if variant.env_kwargs != json_object.EMPTY:
        return "--env-kwargs gives arguments of its own"
    if variant.max_episode_steps is not None:
        return "--max-episode-steps is its own"
    if envpool_vector.is_named(env_id):
        return ""
    if module_of(env_id):
        return "its id names the package"
    if not envpool_vector.is_installed():
        return "EnvPool, which is faster, is not installed (the extra envpool)"
    return "" if envpool_vector.knows(env_id) else "EnvPool has no such level"


def _taker(wanted: Wanted) -> str:
    """What takes single environments; processes do not, since there are threads in their place."""
    return wanted._replace(one_by_one=False).takes_single_ones
