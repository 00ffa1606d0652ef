"""The command refuses bad configurations before anything is written, and says why in one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.app import EXIT_BAD_CONFIG
from pipeline.config import Config
from pipeline.storage.record import COMPLETED, write_summary

# arguments -> what the sentence must name: the key, the value received, what is allowed
BAD = {
    "head.widht=3": ("head.widht", "width"),
    "foo=3": ("foo", "head"),
    "+foo=3": ("foo", "head"),
    "+head.foo=3": ("head.foo", "depth"),
    "head.width=0": ("head.width=0", ">= 1"),
    "head.width=abc": ("head.width", "'abc'", "integer >= 1"),
    "head.width=2.5": ("head.width", "'2.5'", "integer >= 1"),
    "head.width=true": ("head.width", "'True'", "integer >= 1"),
    "head.width=null": ("head.width", "integer >= 1"),
    "head.width=???": ("head.width=???", "--help"),
    "head.width=1000000000": ("head.width=1000000000", "GiB of memory", "smaller"),
    "protocol=dufm descent.seeds=1000000000": ("descent.seeds=1000000000", "GiB of memory", "smaller"),
    "protocol=dufm protocol.samples_per_class=1000000000000": ("protocol.samples_per_class=1000000000000", "of memory"),
    "backbone.hidden=[1000000,1000000]": ("backbone.hidden=[1000000, 1000000]", "GiB of memory"),
    "data.image_size=1000000": ("data.image_size=1000000", "360 images", "GiB of memory"),
    "head.depth=1001": ("head.depth=1001", "<= 1000"),
    "head.depth=-1": ("head.depth=-1", ">= 0"),
    "head.depth=0": ("head.depth=0", "head.inputs=free"),
    "head.depth=${nowhere}": ("head.depth", "nowhere"),
    "head.weight_decay=[1,2]": ("head.weight_decay=[1,2]", "head.depth=4"),
    "head.weight_decay=[1,2,3,x]": ("head.weight_decay=[1,2,3,x]", "number >= 0"),
    "head.weight_decay=-1": ("head.weight_decay=-1", ">= 0"),
    "head.weight_decay=null": ("head.weight_decay", "number >= 0"),
    "head.weight_decay=true": ("head.weight_decay=True", "number"),
    "head.weight_decay={a:1}": ("head.weight_decay", "number >= 0"),
    "head.feature_decay=-1": ("head.feature_decay=-1", ">= 0"),
    "head.inputs=frosen": ("head.inputs=frosen", "frozen, free"),
    "descent.lr=0": ("descent.lr=0", "> 0"),
    "descent.lr=nan": ("descent.lr=nan", "finite"),
    "descent.lr=1e400": ("descent.lr=inf", "finite"),
    "descent.lr=1e300": ("descent.lr=1e+300", "at most 1e+30"),
    "descent.lr=abc": ("descent.lr", "'abc'", "number > 0"),
    "descent.steps=0": ("descent.steps=0", ">= 1"),
    "descent.seeds=0": ("descent.seeds=0", ">= 1"),
    "descent.sharded=yes": ("descent.sharded=yes", "auto, true, false"),
    "descent.sharded=true head.inputs=free": ("descent.sharded=true", "head.inputs=free moves", "head.inputs=frozen"),
    "descent.sharded=true protocol=dufm": ("descent.sharded=true", "protocol=dufm has no head", "frozen_features"),
    "descent.sharded=true descent.polish=true": ("descent.sharded=true", "descent.polish=true takes all samples"),
    "descent.sharded=true features.cache=x": ("descent.sharded=true", "features.cache keeps whole splits"),
    "descent.sharded=true measure.families=[core,probe]": ("descent.sharded=true", "rows of all ranks"),
    "descent.precision=float16": ("descent.precision=float16", "float64, float32, tf32, auto"),
    "optimizer.momentum=1": ("optimizer.momentum=1", "< 1"),
    "optimizer=sgdd": ("optimizer=sgdd", "adamw, lbfgs, sgd"),
    "backbone=resnet21": ("backbone=resnet21", "resnet20"),
    "backbone.epochs=-1": ("backbone.epochs=-1", ">= 0"),
    "backbone.hidden=[]": ("backbone.hidden=[]", ">= 1"),
    "backbone.hidden=[0]": ("backbone.hidden=[0]", ">= 1"),
    "backbone=timm backbone.model=resnet1": ("backbone.model=resnet1", "timm.list_models"),
    "backbone=timm backbone.model=null": ("backbone.model=null", "timm.list_models"),
    "backbone=resnet20 backbone.pretrained=true": ("backbone.pretrained=true", "timm"),
    "data=nothing": ("data=nothing", "digits"),
    "data.name=nothing": ("data.name=nothing", "digits"),
    "data.classes=[0]": ("data.classes=[0]", "two or more"),
    "data.classes=[]": ("data.classes=[]", "two or more"),
    "data.classes=[0,0]": ("data.classes=[0, 0]", "once"),
    "data.classes=[0,99]": ("data.classes", "99", "0..9"),
    "data.classes=[0,banana]": ("data.classes", "banana", "0..9"),
    "data.classes=[0,true]": ("data.classes", "True", "0..9"),
    "data.classes=zero": ("data.classes=zero", "[a,b,...]"),
    "data.samples_per_class=0": ("data.samples_per_class=0", ">= 1"),
    "data.samples_per_class=100000": ("data.samples_per_class=100000", "1..142"),
    "data.test_fraction=1": ("data.test_fraction=1", "< 1"),
    "data=mnist": ("data.root=null", "folder"),
    "data=mnist data.root=/nowhere/at/all": ("data.root=/nowhere/at/all", "folder"),
    "data=cifar10 data.root=.": ("data.root=.", "cifar-10-batches-py"),
    "protocol=nothing": ("protocol=nothing", "frozen_features"),
    "protocol=dufm protocol.num_classes=1": ("protocol.num_classes=1", ">= 2"),
    "protocol.regularization=x": ("protocol.regularization=x", "standard, objective, dufm"),
    "protocol=end_to_end protocol.regularization=dufn": ("protocol.regularization=dufn", "(did you mean dufm?)"),
    "protocol=fixed_head protocol.solution=x": ("protocol.solution=x", "descent, constructed"),
    "protocol=fixed_head head.width=1": ("head.width=1", "64 features", "classes (2)"),
    "protocol=fixed_head backbone.hidden=[8,1]": ("protocol=fixed_head", "1 features", "classes (2)"),
    "protocol=fixed_head head.width=2 data.classes=[0,1,2]": ("head.width=2", "classes (3)"),
    "protocol=fixed_head head.weight_decay=1": ("head.weight_decay=1", "head.feature_decay=5e-06", "smaller"),
    "protocol=fixed_head head.depth=2 head.weight_decay=[1e-3,1e6]": (
        "head.weight_decay=[0.001, 1000000.0]",
        "smaller",
    ),
    "protocol=fixed_head protocol.solution=constructed head.feature_decay=1e3": ("head.feature_decay=1000", "smaller"),
    "stop_when_collapsed=maybe": ("stop_when_collapsed", "'maybe'", "true or false"),
    "backbone.from_run=/nowhere/at/all": ("backbone.from_run=/nowhere/at/all", "does not exist", "folder of a run"),
    "backbone.from_run=/dev/null": ("backbone.from_run=/dev/null", "not a folder"),
    "backbone.from_run=.": ("backbone.from_run=.", "not a run's folder", "checkpoints"),
    "backbone.checkpoint=/nowhere.pt": ("backbone.checkpoint=/nowhere.pt", "does not exist", ".safetensors"),
    "backbone.checkpoint=.": ("backbone.checkpoint=.", "is a folder"),
    "backbone.checkpoint=a backbone.from_run=b": ("backbone.from_run=b", "backbone.checkpoint=a", "one of them"),
    "backbone=custom": ("backbone._target_=null", "package.module.Class"),
    "backbone=custom backbone._target_=nowhere.Net": ("backbone._target_=nowhere.Net", "no module nowhere"),
    "backbone=custom backbone._target_=os.system": ("backbone._target_=os.system", "torch.nn.Module"),
    "backbone=custom backbone._target_=torch.nn.Linear": ("backbone._target_=torch.nn.Linear", "backbone.kwargs={}"),
    "backbone._target_=torch.nn.Flatten": ("backbone._target_=torch.nn.Flatten", "backbone=custom"),
    "data=image_folder": ("data.root=null", "folder"),
    "data=image_folder data.root=.": ("data.root=.", "class folders"),
    "trainer.devices=0": ("trainer.devices=0", ">= 1"),
    "trainer.threads=0": ("trainer.threads=0", ">= 1"),
    "logger=nothing": ("logger=nothing", "wandb"),
    "verdict.dnc2=0.5": ("verdict.dnc2=0.5", ">= 1"),
    "seed=-1": ("seed=-1", ">= 0"),
    "seed=99999999999999999999": ("seed=99999999999999999999", "< 4294967296"),
    "hydra.run.dir=": ("hydra.run.dir=", "no folder"),
    "hydra.run.dir=/dev/null/x": ("hydra.run.dir=/dev/null/x", "lies in /dev/null", "is a file"),
    "hydra.run.dir=/dev/null": ("hydra.run.dir=/dev/null", "folder"),
    "head=null": ("Config group",),
    "head.width": ("head.width", "key=value"),
    "head=[": ("head=[", "key=value"),
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_gets_one_sentence_and_exit_2_and_leaves_nothing(arguments, run_here):
    code, err, left = run_here(*arguments.split())
    assert code == EXIT_BAD_CONFIG
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1 and "Traceback" not in err
    for part in BAD[arguments]:
        assert part in err
    assert left == []


def test_a_leading_tilde_is_the_home_folder(run_here, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/nobody")
    code, err, _ = run_here("data=mnist", "data.root=~/images")
    assert code == EXIT_BAD_CONFIG and "data.root=/home/of/nobody/images" in err


def test_a_bad_job_of_a_multirun_is_refused_without_a_folder_of_its_own(run_here, tmp_path):
    code, err, _ = run_here("--multirun", "hydra.sweep.dir=sweep", "head.width=0,-1")
    assert code == EXIT_BAD_CONFIG
    assert "head.width=0" in err and "Traceback" not in err
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["multirun.yaml"]


def test_a_completed_run_is_never_overwritten(run_here, tmp_path):
    write_summary(tmp_path / "run", {"status": COMPLETED})
    before = (tmp_path / "run" / "summary.json").read_bytes()
    code, err, _ = run_here(f"hydra.run.dir={tmp_path / 'run'}")
    assert code == EXIT_BAD_CONFIG and "completed run" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["summary.json"]
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def test_help_names_every_setting_with_its_present_value():
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "--help", "head.width=77", "protocol=dufm"],
        capture_output=True,
        text=True,
        check=True,
    )
    for group, node in vars(Config()).items():
        for name in vars(node) if hasattr(node, "__dataclass_fields__") else ():
            assert f"{group}.{name} " in done.stdout
    assert next(line for line in done.stdout.splitlines() if "head.width" in line).split()[1] == "77"
    assert next(line for line in done.stdout.splitlines() if "protocol.name" in line).split()[1] == "dufm"


def test_an_unknown_flag_exits_2():
    done = subprocess.run([sys.executable, "-m", "pipeline", "--frobnicate"], capture_output=True, text=True)
    assert done.returncode == EXIT_BAD_CONFIG and "--frobnicate" in done.stderr


def test_every_group_of_the_schema_has_its_folder_of_choices():
    conf = Path(__file__).parents[2] / "conf"
    for group in ("data", "backbone", "optimizer", "head", "descent", "protocol", "trainer", "logger"):
        assert list((conf / group).glob("*.yaml"))


SWALLOWS = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    pass
"""


def test_ctrl_c_while_pytorch_loads_ends_the_run_although_its_c_code_drops_errors(tmp_path):
    (tmp_path / "torch.py").write_text(SWALLOWS)
    repository = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.__main__ import main; main()"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{repository}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "interrupted")
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["torch.py"]
