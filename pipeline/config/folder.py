"""Where the YAML files of the configuration are, and what they offer."""

from pathlib import Path


def conf_folder() -> Path:
    """Absolute path of ``conf/``: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "main.yaml").is_file():
            return folder
    raise FileNotFoundError(f"conf/main.yaml is neither in {package} nor beside it: the installation is incomplete")


def known_protocols() -> tuple[str, ...]:
    """The files of ``conf/protocol/``, in alphabetical order: each configures the protocol of its name."""
    return tuple(sorted(file.stem for file in (conf_folder() / "protocol").glob("*.yaml")))


def groups_of_choices() -> list[str]:
    """The folders of ``conf/`` of which an argument chooses a file (``head=relu``)."""
    return sorted(
        path.name for path in conf_folder().iterdir() if path.is_dir() and path.name not in ("hydra", "sweep")
    )
