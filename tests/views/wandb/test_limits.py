"""What wandb refuses is refused before a run begins; what passes here, wandb takes."""

import pytest
import wandb

from pipeline.runtime.errors import ConfigError
from pipeline.views.wandb.limits import check_environment

BAD = {
    "WANDB_RUN_ID": "a/b",
    "WANDB_MODE": "foo",
    "WANDB_RESUME": "bad",
    "WANDB_BASE_URL": "nonsense",
    "WANDB_API_KEY": " canary-of-a-key ",
    "WANDB_TAGS": "x" * 80,
    "WANDB_PROJECT": "a/b",
    "WANDB_SILENT": "maybe",
    "WANDB_HTTP_TIMEOUT": "abc",
}


@pytest.mark.parametrize("name", BAD)
def test_a_variable_that_wandb_refuses_is_named_and_no_secret_is_shown(name):
    with pytest.raises(ConfigError) as caught:
        check_environment({"PATH": "/bin", name: BAD[name]})
    sentence = str(caught.value)
    assert name in sentence and "logger=none" in sentence and "\n" not in sentence
    assert "canary" not in sentence


def test_variables_that_wandb_takes_pass():
    check_environment({"WANDB_RUN_ID": "abc", "WANDB_MODE": "offline", "WANDB_API_KEY": "k" * 40, "WANDB_NAME": ""})
    check_environment({"HOME": "/nowhere"})


@pytest.mark.parametrize("letter", list("/\\#?%:.-_~@!+;,|"))
def test_a_project_that_passes_is_one_that_wandb_takes(letter, composed):
    project = f"a{letter}b"
    assert taken(composed, f"logger.project='{escaped(project)}'") == taken_by_wandb(project=project)


@pytest.mark.parametrize("length", [1, 64, 65, 80, 128, 129, 1000])
def test_names_are_as_long_as_wandb_lets_them_be(length, composed):
    name = "x" * length
    assert taken(composed, f"logger.project={name}") == taken_by_wandb(project=name)
    assert taken(composed, f"logger.tags=[ok,{name}]") == taken_by_wandb(run_tags=["ok", name])


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        (f"logger.tags=[{'x' * 80}]", ["logger.tags=", "80 characters", "1 to 64"]),
        ("logger.tags=['']", ["logger.tags=", "0 characters"]),
        ("logger.project=a/b", ["logger.project=a/b", "none of / "]),
        ("logger.project=''", ["logger.project=", "1 to 128"]),
    ],
)
def test_the_key_and_what_is_allowed_are_named(argument, parts, composed):
    with pytest.raises(ConfigError) as caught:
        composed(argument)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    composed(argument, "logger=none")  # whose names nobody reads


def test_nothing_is_written_when_wandb_would_refuse(run_here):
    code, err, left = run_here("protocol=dufm", "descent.steps=20", "hydra.run.dir=r", f"logger.tags=[{'x' * 80}]")
    assert code == 2 and "logger.tags" in err and left == []


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'") if text != "a\\b" else text


def taken(composed, argument: str) -> bool:
    try:
        composed(argument)
    except ConfigError:
        return False
    return True


def taken_by_wandb(**settings: object) -> bool:
    try:
        wandb.Settings(**settings)
    except (wandb.errors.Error, ValueError):
        return False
    return True
