"""What a run folder that is a stranger's may ask for when it is resumed."""

import os
from pathlib import Path

import pytest

from pipeline.cli.trust import check_kept
from pipeline.runtime.errors import ConfigError


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "strange" / "conf").mkdir(parents=True)
    (tmp_path / "strange" / "conf" / "x.yaml").touch()
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "x.yaml").touch()
    return tmp_path / "strange"


def refused(run: Path, *overrides: str, own: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError, match=r"resume=.* asks for .*; allowed: .*reliability\.md") as caught:
        check_kept(run, overrides, own)
    return str(caught.value)


def test_configuration_folders_of_the_user_and_settings_are_taken(run):
    mine = str(run.parent / "mine")
    overrides = ["protocol=dufm", "+experiment=x", "logger.notes='a -b'", "~head.width", "data.root=/a/../b"]
    check_kept(run, [*overrides, f"hydra.searchpath=[file://{mine}]", "backbone._target_=torch.nn.Linear"], [mine])


@pytest.mark.parametrize(
    "form", ["hydra.searchpath=[file://{}]", "+hydra.searchpath=[{}]", "hydra.searchpath=[a,'{}']"]
)
def test_a_search_path_into_the_run_folder_is_named_and_refused(form, run, monkeypatch):
    assert "lies in the run folder" in refused(run, form.format(run / "conf"))
    (run.parent / "link").symlink_to(run / "conf")
    assert "lies in the run folder" in refused(run, form.format(run.parent / "link"))
    (run.parent / "mine" / "y.yaml").symlink_to(run / "conf" / "x.yaml")
    assert "y.yaml lies in the run folder" in refused(run, form.format(run.parent / "mine"))
    monkeypatch.chdir(run)
    assert "lies in the run folder" in refused(run, form.format("conf"))


def test_a_configuration_folder_in_the_run_folder_is_named_and_refused(run):
    for folder in (run / "conf", run, run.parent / "mine" / ".." / "strange" / "conf"):
        assert f"--config-dir={folder}: that folder lies in the run folder" in refused(run, own=(str(folder),))


@pytest.mark.parametrize("name, why", [("a" * 300, "too long"), ("a/" * 3000, "too long"), ("b\0c", "null byte")])
def test_a_configuration_folder_that_no_file_system_can_name_is_refused(name, why, run):
    assert why in refused(run, f"hydra.searchpath=['file://{run.parent}/{name}']")
    assert why in refused(run, own=(f"{run.parent}/{name}",))


@pytest.mark.parametrize("theirs", ["mine", "mine/experiment", "mine/experiment/x.yaml"])
def test_what_is_not_the_users_own_is_named_and_refused(theirs, run, monkeypatch):
    stat = Path.stat

    def owned(path: Path, **options: bool) -> os.stat_result:
        found = stat(path, **options)
        changed = list(found)
        changed[4] += path == run.parent / theirs
        return os.stat_result(changed)

    monkeypatch.setattr(Path, "stat", owned)
    said = refused(run, f"hydra.searchpath=[file://{run.parent / 'mine'}]")
    assert f"{run.parent / theirs} is not yours" in said


@pytest.mark.parametrize(
    "override",
    [
        *("--config-dir=/tmp", "-m", "--experimental-rerun=x", "hydra.searchpath=[pkg://strange]", "hydra/launcher=x"),
        *("hydra.job.env_set.WANDB_BASE_URL=http://x", "hydra.searchpath=${oc.env:HOME}", "hydra.sweep.dir=x"),
        *("+experiment=../../strange/conf/x", "data=/tmp/strange/x", "experiment=[x,../y]", "a=[", "+data@hydra.job=x"),
    ],
)
def test_flags_paths_to_files_and_settings_of_hydra_are_refused(override, run):
    assert override.partition("=")[0] in refused(run, "seed=1", override)


@pytest.mark.parametrize("name", ["evil.py", "evil/__init__.py", "evil/net.py"])
def test_a_network_in_the_run_folder_is_not_imported(name, run, monkeypatch):
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("raise SystemExit('imported')")
    monkeypatch.chdir(run)
    assert "that module lies in the run folder" in refused(run, "backbone._target_=evil.net.Net")
