"""What one trusts by training with it, as the options of the programs that take it from a run."""

from impala_redis.common.run.config import Config
from impala_redis.common.settings.env_id import module_of, name_of
from impala_redis.common.settings.json_object import EMPTY
from impala_redis.common.user_code.modules import as_typed

# The package EnvPool: an id of its own imports nothing else, so programs take it from any run.
_NEEDS_NO_TRUST = "envpool"


def trusted_by(config: Config) -> list[tuple[str, str]]:
    """Options with their values: modules, and an environment whose arguments somebody has typed."""
    environment, network = config.environment, module_of(config.model.network)
    modules = [module for module in environment.modules if module != _NEEDS_NO_TRUST]
    options = [("--env-module", module) for module in modules]
    with_arguments = [
        name_of(env) for env, variant in environment.worlds if variant.env_kwargs != EMPTY
    ]
    options += [("--env-module", name) for name in dict.fromkeys(with_arguments)]
    return options + ([("--network-module", network)] if network else [])


def trust_options(config: Config) -> str:
    """The same as one types them in this folder, each with a space before it."""
    return "".join(f" {option} {as_typed(value)}" for option, value in trusted_by(config))
