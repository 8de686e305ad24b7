"""The options by which one trusts what a run imports, as other programs are told to type them."""

from impala_redis.common.run.config import Config
from impala_redis.common.settings.env_id import module_of
from impala_redis.common.user_code.modules import as_typed


def trust_options(config: Config) -> str:
    """Such options with a space before each; empty for a run that imports nothing of the user's."""
    network = module_of(config.model.network)
    options = [f"--env-module {as_typed(module)}" for module in config.environment.modules]
    options += [f"--network-module {as_typed(network)}"] if network else []
    return "".join(f" {option}" for option in options)
