"""What wandb refuses: known before a run begins, which would otherwise be left untracked."""

import os
from collections.abc import Mapping

from pipeline.config.environment import SECRET
from pipeline.runtime.errors import ConfigError


def check_environment(variables: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigError if an environment variable of wandb's (``WANDB_RUN_ID``, ...) has a value that it refuses."""
    own = {name: value for name, value in variables.items() if name.startswith("WANDB_") and value}
    if not own:
        return
    import wandb  # takes a second, and is asked because it alone knows its variables

    for name, value in own.items():
        try:
            wandb.Settings().update_from_env_vars({name: value})
        except (wandb.errors.Error, ValueError, TypeError) as error:
            shown = f"the environment variable {name}" if SECRET.search(name) else f"{name}={value} in the environment"
            raise ConfigError(
                f"{shown} is refused by wandb ({_reason(error, value)}); allowed: without it, or logger=none."
            ) from None


def _reason(error: Exception, value: str) -> str:
    """wandb's reason in one line: of pydantic's errors the last line but one, without the value."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("For further information")]
    reason = (lines or [type(error).__name__])[-1].partition(" [type=")[0].removeprefix("Value error, ").rstrip(".")
    return reason.replace(value, "...") if len(value) > 3 else reason
