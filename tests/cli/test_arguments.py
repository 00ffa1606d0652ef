"""What an argument may say, beside what the attacks in test_security.py try."""

import pytest

from pipeline.cli.arguments import readable
from pipeline.cli.trust import check_kept
from pipeline.runtime.errors import ConfigError

CALLBACK = "trainer.callbacks=[{_target_: pytorch_lightning.callbacks.Timer, duration: '00:01:00:00'}]"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("logger=[wandb,csv]", ["logger=wandb", "logger.also=[csv]"]),
        ("logger=[wandb, csv, mlflow]", ["logger=wandb", "logger.also=[ csv, mlflow]"]),
        ("logger=[csv]", ["logger=csv"]),
        ("logger=csv", ["logger=csv"]),
    ],
)
def test_several_loggers_are_one_and_others_beside_it(said, meant):
    assert readable([said]) == meant


def test_of_classes_only_a_network_and_callbacks_may_be_named():
    assert readable([CALLBACK]) == [CALLBACK]
    for elsewhere in ("trainer.threads", "hydra.callbacks.x", "trainer", "logger.tags"):
        with pytest.raises(ConfigError, match=r"could run code .*allowed: .*trainer\.callbacks"):
            readable([f"{elsewhere}=[{{_target_: os.system}}]"])


def test_a_resumed_run_may_name_callbacks_of_the_user_and_none_in_its_folder(tmp_path, monkeypatch):
    run = tmp_path / "strange"
    run.mkdir()
    (run / "theirs.py").write_text("raise SystemExit('imported')")
    check_kept(run, [CALLBACK], ())
    monkeypatch.chdir(run)
    with pytest.raises(ConfigError, match="that module lies in the run folder"):
        check_kept(run, ["trainer.callbacks=[{_target_: theirs.Callback}]"], ())
