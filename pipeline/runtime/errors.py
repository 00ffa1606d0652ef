"""Errors a user can mend: each is one sentence, shown without a traceback."""


class ConfigError(ValueError):
    """A setting that cannot be used: names the key, the value and what is allowed. Nothing was written (exit 2)."""


class RunError(RuntimeError):
    """A run that cannot go on, and what usually helps (exit 1)."""
