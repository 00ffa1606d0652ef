"""Environment variables in a configuration."""

import os
import re
from typing import Any

from pipeline.runtime.errors import ConfigError

SECRET = re.compile(r"key|token|secret|passw|credential|cookie|auth|private", re.IGNORECASE)


def environment_variable(name: str, default: Any = ...) -> Any:
    """The resolver ``${oc.env:NAME,default}``: not for secrets, because resolved values are recorded.

    Raises:
        ConfigError: the variable is not set and there is no default, or its name sounds like a secret's.
    """
    if SECRET.search(name):
        raise ConfigError(f"${{oc.env:{name}}} would put a secret into the record; allowed: other variables.")
    value = os.environ.get(name, default)
    if value is ...:
        raise ConfigError(
            f"${{oc.env:{name}}}: this environment variable is not set; allowed: ${{oc.env:{name},default}}."
        )
    return value
