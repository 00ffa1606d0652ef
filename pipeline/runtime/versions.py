"""What ``--version`` prints."""

import platform
from importlib.metadata import version


def print_versions() -> None:
    """Print the versions of this package and of those that matter most to what it does, importing none."""
    others = [f"{name} {version(name)}" for name in ("torch", "pytorch-lightning", "hydra-core", "wandb")]
    print(f"dnc {version('deep-neural-collapse')} ({', '.join(others)}, Python {platform.python_version()})")
