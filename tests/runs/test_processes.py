"""Where a process stands is read off what torchrun or srun say, and has to agree with the configuration."""

import pytest
import torch
from omegaconf import OmegaConf

from pipeline.config import Config, from_plain, settings
from pipeline.runs import launches, processes
from pipeline.runs.launches import RankAssignment, launched_rank
from pipeline.runs.processes import check, own_gpu
from pipeline.runtime.errors import ConfigError, RunError

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "4"}
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}


def config(**trainer) -> Config:
    cfg = OmegaConf.structured(Config)
    names = {"data.name": "digits", "backbone.name": "mlp", "optimizer.name": "sgd", "protocol.name": "dufm"}
    for key, value in (names | {"logger.name": "none", "trainer.accelerator": "cpu"}).items():
        OmegaConf.update(cfg, key, value)
    for key, value in trainer.items():
        OmegaConf.update(cfg, f"trainer.{key}", value)
    return settings(cfg)


@pytest.mark.parametrize(("variables", "launcher"), [(TORCHRUN, "torchrun"), (SRUN, "srun")])
def test_the_place_is_what_the_launcher_says(variables, launcher):
    assert launched_rank(variables) == RankAssignment(3, 1, 1, 4, launcher)


def test_a_follower_stands_where_the_first_process_put_it():
    given = RankAssignment(1, 1, 0, 2, "dnc")
    assert launched_rank(given.variables("127.0.0.1", 1) | {launches.FOLLOWER: "1"}) == given


def test_torchrun_within_a_slurm_job_is_torchrun():
    assert launched_rank(SRUN | TORCHRUN).launcher == "torchrun"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script, without srun
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
        {"WORLD_SIZE": "2", "RANK": "1"},  # left over from something else
    ],
)
def test_a_process_that_nobody_placed_stands_alone(variables):
    assert launched_rank(variables) is None


@pytest.mark.parametrize(
    "variables",
    [
        *({"SLURM_STEP_NUM_TASKS": tasks} for tasks in ("", "4(x2)", "4", "-1", "x")),
        *(SRUN | {name: "x"} for name in SRUN),
        SRUN | {"SLURM_PROCID": "4"},
        {"TORCHELASTIC_RUN_ID": "x"},
        *(
            {key: text for key, text in TORCHRUN.items() if key != name} | {"TORCHELASTIC_RUN_ID": "x"}
            for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE")
        ),
        {"DNC_FOLLOWER": "1"},
        {"RANK": "1", "LOCAL_RANK": "x", "WORLD_SIZE": "", "SLURM_PROCID": "3", "TORCHELASTIC_USE_AGENT_STORE": "1"},
    ],
)
def test_what_another_launch_left_behind_is_told_and_forgotten(variables, caplog):
    left = dict(variables) | {"SLURM_JOB_ID": "7", "PATH": "/bin"}
    assert launched_rank(left) is None
    launches.forget_leftovers(left)
    assert caplog.messages and all(name in caplog.text for name in set(variables) - set(left))
    assert left["SLURM_JOB_ID"] == "7" and launched_rank(left) is None
    ranks = [left.get(name, "0") for name in (*launches.ELSEWHERE, "SLURM_STEP_NUM_TASKS", "TORCHELASTIC_RUN_ID")]
    caplog.clear()
    launches.forget_leftovers(left)
    assert set(ranks) == {"0"}
    assert caplog.messages == []


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN, {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0"}, {}])
def test_a_launch_that_is_whole_is_left_as_it_is(variables, caplog):
    kept = dict(variables)
    launches.forget_leftovers(kept)
    assert kept == variables and caplog.messages == []


def test_an_old_launch_of_torchrun_does_not_hide_that_of_srun(caplog):
    variables = SRUN | {"TORCHELASTIC_RUN_ID": "x"}
    assert launched_rank(variables).launcher == "srun"
    launches.forget_leftovers(variables)
    assert variables == SRUN and "TORCHELASTIC_RUN_ID=x" in caplog.text


def test_the_variables_of_a_place_are_those_that_pytorch_reads():
    assert RankAssignment(3, 1, 1, 4, "srun").variables("10.0.0.1", 4711) == {
        "RANK": "3",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "NODE_RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "4711",
    }


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN])
def test_the_configuration_has_to_agree_with_the_launch(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check(config(devices=2, num_nodes=2))
    with pytest.raises(ConfigError, match=r"trainer\.devices=2 and trainer\.num_nodes=1 make 2 .* started 4"):
        check(config(devices=2))


def test_where_a_launcher_shows_each_process_one_gpu_that_is_its_own(monkeypatch):
    setting = config(devices=4)
    monkeypatch.setattr(type(setting), "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"trainer\.devices=4, but there are 1 CUDA devices"):
        check(setting)  # which would start all four itself, on one GPU
    for name, value in (SRUN | {"SLURM_NODEID": "0", "LOCAL_RANK": "3"}).items():
        monkeypatch.setenv(name, value)
    check(setting)
    assert own_gpu() == 0
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    check(setting)
    assert own_gpu() == 3


def test_other_machines_need_a_launcher(monkeypatch):
    for name in (*TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    check(config(devices=2))
    with pytest.raises(ConfigError, match=r"trainer\.num_nodes=2 needs a launcher"):
        check(config(num_nodes=2))
    with pytest.raises(ConfigError, match=r"trainer\.devices=1000, but this machine has \d+ CPU cores; allowed: 1\.\."):
        check(config(devices=1000))


def test_a_configuration_survives_the_way_to_another_process():
    import json
    from dataclasses import asdict

    sent = config(devices=2, threads=1)
    sent.data.classes, sent.backbone.kwargs, sent.head.weight_decay = [0, "x"], {"a": [1, {"b": 2.5}]}, [1e-3] * 4
    assert from_plain(json.loads(json.dumps(asdict(sent)))) == sent


def test_a_broken_connection_is_told_as_what_it_is_and_nothing_else_is():
    with pytest.raises(RunError, match="lost another process of the run") as told, processes._lost_rank_explained():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer [127.0.0.1]:1")
    assert "gloo" not in str(told.value) and "127.0.0.1" not in str(told.value)
    with pytest.raises(RuntimeError, match="shapes"), processes._lost_rank_explained():
        raise RuntimeError("shapes differ")
    with pytest.raises(RunError, match="of our own"), processes._lost_rank_explained():
        raise RunError("gloo, of our own")
