"""What Hydra is called with."""

import os
from pathlib import Path

import pytest
import yaml

from pipeline.cli.invocation import hydra_arguments
from pipeline.runtime.console import verbosity
from pipeline.runtime.errors import ConfigError


def seen(*arguments: str) -> list[str]:
    with hydra_arguments(arguments) as result:
        return result


def run_folder(folder: Path, overrides: list[str], own_configs: str | None = None) -> Path:
    """What Hydra leaves in a run folder."""
    sources = [{"path": "hydra.conf", "provider": "hydra"}]
    if own_configs:
        sources.append({"path": own_configs, "provider": "command-line"})
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    hydra = {"hydra": {"runtime": {"config_sources": sources}}}
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    return folder


def test_arguments_without_anything_special_pass_as_they_are():
    arguments = ["--multirun", "--config-dir", "x", "seed=0,1", "head=relu"]
    assert seen(*arguments) == arguments


@pytest.mark.parametrize(
    "given",
    [
        ["seed=0,1", "--config-dir", "x=y", "head=relu", "--multirun", "x=y"],
        ["--config-dir", "x=y", "seed=0,1", "--multirun", "head=relu", "x=y"],
        ["seed=0,1", "head=relu", "x=y", "--config-dir", "x=y", "--multirun"],
    ],
)
def test_flags_may_stand_between_overrides_whose_order_stays(given):
    result = seen(*given)
    assert sorted(result) == sorted(given)
    assert [argument for argument in result if argument != "--config-dir"][-3:] == ["seed=0,1", "head=relu", "x=y"]
    assert result[result.index("--config-dir") + 1] == "x=y" and "--multirun" in result[:3]


def test_a_leading_tilde_of_a_value_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/nobody")
    assert seen("data.root=~/x", "~head.width", "logger.project='a~b'") == [
        "data.root=/home/of/nobody/x",
        "~head.width",
        "logger.project='a~b'",
    ]


def test_resume_stands_for_the_command_that_made_the_folder(tmp_path):
    folder = run_folder(tmp_path / "a run", ["protocol=dufm", "seed=3"])
    assert seen(f"resume={folder}") == ["protocol=dufm", "seed=3", f"hydra.run.dir='{folder}'"]


def test_resume_finds_configurations_of_the_users_own_and_takes_more_settings(tmp_path):
    folder = run_folder(tmp_path / "run", ["experiment=mine"], own_configs="/my/conf")
    assert seen("trainer=ddp", f"resume={folder}") == [
        *["--config-dir", "/my/conf", "experiment=mine", f"hydra.run.dir='{folder}'", "trainer=ddp"]
    ]


def test_resume_takes_a_relative_folder_and_odd_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_folder(tmp_path / "it's ümlaut", [])
    assert seen("resume=it's ümlaut") == [f"hydra.run.dir='{tmp_path}/it\\'s ümlaut'"]


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"resume=.*nowhere is not the folder of a run.*overrides\.yaml"):
        seen(f"resume={tmp_path / 'nowhere'}")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("[]")
    (tmp_path / ".hydra" / "hydra.yaml").write_text("{]")
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        seen(f"resume={tmp_path}")


@pytest.mark.parametrize(
    "variables",
    [
        {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "WORLD_SIZE": "2"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NODEID": "1"},
    ],
)
def test_another_rank_lets_hydra_write_to_nowhere(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with hydra_arguments(["hydra.run.dir=here", "seed=1"]) as arguments:
        assert arguments[:2] == ["hydra.run.dir=here", "seed=1"]
        [nowhere] = {argument.partition("=")[2] for argument in arguments[2:] if ".dir=" in argument}
        assert os.path.isdir(nowhere) and "hydra.output_subdir=null" in arguments
    assert not os.path.exists(nowhere)


@pytest.mark.parametrize("flag, shown", [("-q", "quiet"), ("--quiet", "quiet"), ("-v", "verbose")])
def test_flags_of_ours_hold_meanwhile_and_hydra_does_not_see_them(flag, shown, tmp_path):
    folder = run_folder(tmp_path / "run", ["seed=3"])
    with hydra_arguments(["--multirun", flag, f"resume={folder}"]) as arguments:
        assert verbosity() == shown
        assert arguments == ["--multirun", "seed=3", f"hydra.run.dir='{folder}'"]
        assert not {"-q", "--quiet", "-v"} & set(arguments)
    assert verbosity() == "normal"


def test_flags_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match="--quiet and --verbose contradict each other"):
        seen("-q", "--verbose")


@pytest.mark.parametrize("text", ["a: &x [1]\nb: *x", "- 7", "- [a]", "[" * 100_000, "x: 1", "\x1b[2J"])
def test_settings_that_cannot_be_used_are_told_in_a_sentence(text, tmp_path):
    folder = run_folder(tmp_path / "run", [])
    (folder / ".hydra" / "overrides.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"is not the folder of a run \(overrides\.yaml is unreadable: ") as caught:
        seen(f"resume={folder}")
    assert str(caught.value).isprintable()


def test_a_strangers_folder_brings_no_configuration_of_its_own(tmp_path):
    folder = tmp_path / "strange"
    run_folder(folder, ["experiment=own"], own_configs=str(folder / "conf"))
    with pytest.raises(ConfigError, match=r"asks for --config-dir=.*strange/conf: that folder lies in the run folder"):
        seen(f"resume={folder}")
