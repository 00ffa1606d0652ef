"""Environment variables reach a configuration, secrets do not."""

import pytest

from pipeline.config.environment import environment_variable
from pipeline.runtime.errors import ConfigError


def test_a_variable_or_its_default_is_the_value(monkeypatch):
    monkeypatch.setenv("A_FOLDER", "x")
    assert environment_variable("A_FOLDER") == "x"
    monkeypatch.delenv("A_FOLDER")
    assert environment_variable("A_FOLDER", None) is None


def test_a_variable_that_is_not_set_is_told(monkeypatch):
    monkeypatch.delenv("A_FOLDER", raising=False)
    with pytest.raises(ConfigError, match=r"oc.env:A_FOLDER.* is not set; allowed: "):
        environment_variable("A_FOLDER")


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "github_token", "MY_SECRET", "DB_PASSWORD"])
def test_what_sounds_like_a_secret_is_refused_even_with_a_default(name, monkeypatch):
    monkeypatch.setenv(name, "f" * 40)
    with pytest.raises(ConfigError, match="would put a secret into the record") as caught:
        environment_variable(name, "default")
    assert "ffff" not in str(caught.value)
