"""Files and arguments of strangers run no code, secrets stay where they are, and odd folders are folders."""

import ast
import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from commands import commands, content

from pipeline.cli.app import EXIT_BAD_CONFIG
from pipeline.cli.arguments import readable
from pipeline.networks import build_backbone
from pipeline.runtime.errors import ConfigError

PACKAGE = Path(__file__).parents[2] / "pipeline"
BETWEEN_RANKS = ("runtime", "ranks.py")
"""The one module that unpickles: what processes of one run send each other, as `all_gather_object` would."""
MLP = ["backbone.hidden=[4]", "logger=none", "record.figures=false"]
DUFM = [
    "protocol=dufm",
    "logger=none",
    "record.figures=false",
    "descent.steps=2",
    "descent.seeds=1",
    "head.depth=2",
    "head.width=3",
]
DUFM += ["protocol.num_features=3", "protocol.samples_per_class=2"]
KEY = "0123456789abcdef" * 2 + "76543210"


@pytest.fixture
def refused(tmp_path):
    """Run the command, which is to refuse in one sentence and leave nothing; returns the sentence."""

    def run(*arguments: str, **more: object) -> str:
        here = tmp_path / "here"
        here.mkdir(exist_ok=True)
        before = content(here)
        done = commands().run(*arguments, folder=here, **more)
        assert done.code == EXIT_BAD_CONFIG, done
        assert done.err.startswith("error: ") and done.err.count("\n") == 1 and content(here) == before
        return done.err

    return run


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.victim),)


def make_run(folder: Path) -> Path:
    """The folder of a completed run of an MLP, without its weights."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    settings = {"backbone": {"name": "mlp", "hidden": [4]}, "protocol": {"name": "frozen_features"}}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "summary.json").write_text(json.dumps({"status": "completed", "protocol": "frozen_features"}))
    return folder


def test_the_malicious_pickle_of_these_tests_does_what_it_says(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "victim")))
    assert (tmp_path / "victim").is_dir()


@pytest.mark.parametrize("name", ["w.pt", "w.ckpt", "w.safetensors", "w.pkl"])
def test_a_malicious_checkpoint_is_refused_and_not_executed(name, refused, tmp_path):
    weights = build_backbone("mlp", (1, 8, 8), hidden=(4,)).network.state_dict()
    torch.save({"state_dict": weights, "callback": Malicious(tmp_path / "victim")}, tmp_path / name)
    assert str(tmp_path / name) in refused(f"backbone.checkpoint={tmp_path / name}", *MLP)
    (tmp_path / name).write_bytes(pickle.dumps(Malicious(tmp_path / "victim")))
    refused(f"backbone.checkpoint={tmp_path / name}", *MLP)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("pickled", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_malicious_run_is_refused_and_not_executed(pickled, refused, tmp_path):
    run = make_run(tmp_path / "run")
    for name in ("backbone.safetensors", "backbone.ckpt"):
        pickled({"network.hidden1.0.weight": Malicious(tmp_path / "victim")}, run / "checkpoints" / name)
    assert "checkpoints/backbone.safetensors cannot be read" in refused(f"backbone.from_run={run}", *MLP)
    (run / "checkpoints" / "backbone.safetensors").unlink()
    assert "no checkpoints/backbone.safetensors" in refused(f"backbone.from_run={run}", *MLP)
    assert not (tmp_path / "victim").exists()


def test_yaml_tags_in_the_settings_of_a_run_are_not_obeyed(refused, tmp_path):
    run = make_run(tmp_path / "run")
    tag = f"!!python/object/apply:os.mkdir ['{tmp_path / 'victim'}']"
    (run / ".hydra" / "config.yaml").write_text(f"backbone: {tag}\n")
    (run / "checkpoints" / "backbone.safetensors").touch()
    refused(f"backbone.from_run={run}", *MLP)
    assert not (tmp_path / "victim").exists()


def test_what_lies_in_the_folder_of_an_unfinished_run_is_not_executed(tmp_path):
    run = tmp_path / "run"
    arguments = [*MLP, f"hydra.run.dir={run}", "protocol=end_to_end", "backbone.epochs=1", "data.samples_per_class=4"]
    arguments += ["head.depth=1"]
    for file in ("checkpoints/backbone.ckpt", "checkpoints/last.ckpt", "checkpoints/backbone.safetensors"):
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": Malicious(tmp_path / "victim")}, run / file)
    (run / "stages").mkdir()
    for file in ("features.safetensors", "head.safetensors"):
        (run / "stages" / file).write_bytes(pickle.dumps(Malicious(tmp_path / "victim")))
    (run / "summary.json").write_text('{"status": "running"}')
    done = commands().run(*arguments, folder=tmp_path)
    assert not (tmp_path / "victim").exists()
    assert done.code in (0, 1, EXIT_BAD_CONFIG) and "Traceback" not in done.err, done.err


def test_malicious_batches_of_cifar_are_refused_and_not_executed(refused, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Malicious(tmp_path / "victim")))
    sentence = refused("data=cifar10", f"data.root={tmp_path}", *MLP)
    assert "data_batch_1 is not the published file: its MD5 is" in sentence
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("data", "file"),
    [("mnist", "MNIST/raw/train-images-idx3-ubyte"), ("cifar10", "cifar-10-batches-py/data_batch_5")],
)
@pytest.mark.parametrize("download", [False, True])
def test_a_downloaded_file_that_was_altered_is_refused(data, file, download, data_root, refused, tmp_path):
    for path in (data_root / Path(file).parent).iterdir():
        copy = tmp_path / Path(file).parent / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(path.resolve())
    altered = bytearray((data_root / file).read_bytes())
    altered[-1] ^= 1
    (tmp_path / file).unlink()
    (tmp_path / file).write_bytes(altered)
    # With download=true torchvision sees the damage to CIFAR-10 first, and wants to fetch what cannot be fetched here.
    unreachable = os.environ | {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    sentence = refused(
        f"data={data}", f"data.root={tmp_path}", f"data.download={download}", *MLP, environment=unreachable
    )
    assert "MD5" in sentence or (download and data == "cifar10" and "could not be fetched" in sentence)


def test_an_archive_whose_content_was_altered_is_refused_by_its_checksum(refused, tmp_path):
    """Through torchvision's own verification: the archive lies where its download would put it, but is not the one."""
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"no such archive")
    unreachable = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    sentence = refused(
        "data=cifar10", f"data.root={tmp_path}", "data.download=true", *MLP, environment=os.environ | unreachable
    )
    assert "data.download=true: CIFAR10 could not be fetched" in sentence


def test_torchvision_has_a_checksum_for_every_file_it_fetches_for_us():
    from torchvision.datasets import CIFAR10, MNIST, FashionMNIST

    sums = [md5 for dataset in (MNIST, FashionMNIST) for _, md5 in dataset.resources] + [CIFAR10.tgz_md5]
    assert len(sums) == 9 and all(len(md5) == hashlib.md5().digest_size * 2 for md5 in sums)


def calls(tree: ast.AST) -> set[str]:
    """Dotted names of everything called."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def keywords(tree: ast.AST, name: str) -> list[str]:
    return [ast.unparse(word.value) for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords
            if word.arg == name]  # fmt: skip


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_evaluates_text_or_unpickles(path):
    tree = ast.parse(path.read_text())
    forbidden = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
    forbidden |= {"yaml.full_load", "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "marshal.loads"}
    forbidden |= {"shelve.open", "pd.read_pickle", "torch.hub.load", "torch.jit.load", "hydra.utils.instantiate"}
    if path.parts[-2:] == BETWEEN_RANKS:
        forbidden.remove("pickle.loads")
    assert not calls(tree) & (forbidden | {"instantiate", "dill.load", "cloudpickle.load", "load_from_checkpoint"})
    assert "True" not in keywords(tree, "shell") + keywords(tree, "allow_pickle")
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    for load in loads:
        assert keywords(load, "weights_only") == ["True"]
    for node in ast.walk(tree):  # Lightning reads a checkpoint when it is told where one is
        if isinstance(node, ast.Call) and any(word.arg == "ckpt_path" for word in node.keywords):
            assert keywords(node, "weights_only") == ["True"]


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "os.mkdir", "builtins.exec", "builtins.eval", "subprocess.Popen", "torch.load", "pathlib.Path"),
        *("torchvision.models.get_weight", "torch.nn.init.ones_", "torch.nn.functional.relu", "pipeline.cli.app.main"),
    ],
)
def test_only_a_class_of_modules_is_called(target, refused, tmp_path):
    victim = tmp_path / "victim"
    kwargs = f"{{command: 'mkdir {victim}', path: '{victim}', args: [mkdir, '{victim}'], name: x}}"
    sentence = refused("backbone=custom", f"backbone._target_={target}", f"backbone.kwargs={kwargs}", "logger=none")
    assert f"backbone._target_={target} is a" in sentence and "a class derived from torch.nn.Module" in sentence
    assert not victim.exists()


@pytest.mark.parametrize("target", ["/tmp/x.Net", "../x.Net", "x/y.Net", "x.py:Net", "x", "a b.Net", ".x.Net"])
def test_a_module_is_named_and_never_a_path(target, refused):
    sentence = refused("backbone=custom", f"backbone._target_='{target}'", "logger=none")
    assert "is not a dotted path" in sentence


TARGETS = [
    "+hydra.callbacks.x._target_=tests.callback",
    "hydra.callbacks.validate._target_=logging.Formatter",
    "+hydra.callbacks.x={_target_: logging.Formatter}",
    "+hydra.callbacks={x:{y:[{_target_:a.b}]}}",
    "~hydra.callbacks",
    "~hydra.callbacks.validate",
    "hydra.callbacks=null",
    "hydra.launcher._target_=a.b",
    "hydra.launcher={_target_:a.b}",
    "hydra.launcher=${backbone}",
    "+hydra.launcher.x=${backbone}",
    "+hydra.sweeper.params.x=choice({_target_:a.b},2)",
    "hydra.sweeper._target_=a.b",
    "hydra.sweeper=${backbone}",
    "hydra.job_logging.handlers.console.class=a.b",
    "+hydra.job_logging.formatters.simple={class: a.b}",
    "hydra.hydra_logging=${backbone}",
    "hydra={callbacks:{}}",
    "+backbone@hydra.callbacks.x=custom",
    "+hydra/launcher@hydra.callbacks.x=basic",
    "head._target_=a.b",
    "+head.x={_target_:a.b}",
    "backbone={_target_:a.b}",
    "backbone.kwargs={x:{_target_:a.b}}",
]


@pytest.mark.parametrize("argument", TARGETS)
def test_no_argument_makes_hydra_call_something(argument):
    with pytest.raises(ConfigError, match="could run code of any kind"):
        readable([argument])


def test_a_refused_target_is_one_sentence_of_the_command(refused, tmp_path):
    sentence = refused(f"+hydra.callbacks.x={{_target_: os.mkdir, path: '{tmp_path / 'victim'}'}}", *DUFM)
    assert "could run code of any kind" in sentence and not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["hydra.run.dir=x", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.sweep.dir=y"],
        ["--multirun", "hydra.sweep.subdir=a-${hydra.job.num}", "backbone._target_=a.b", "hydra.verbose=true"],
        ["--config-dir", "a=b", "hydra.run={dir: x}", "hydra/job_logging=none", "+experiment=e1", "hydra.job.name=x"],
    ],
)
def test_documented_arguments_pass_as_they_are(arguments):
    assert readable(arguments) == arguments


def test_what_ones_own_configuration_file_names_is_run(tmp_path):
    """Its author could as well have written a script: this is what --config-dir is for."""
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "own.yaml").write_text(
        "# @package _global_\nhydra:\n  callbacks:\n    own:\n"
        "      _target_: hydra.experimental.callbacks.PickleJobInfoCallback\n"
    )
    done = commands().run(
        f"--config-dir={tmp_path / 'mine'}", "experiment=own", "hydra.run.dir=run", *DUFM, folder=tmp_path
    )
    assert done.code == 0, done.err
    assert list(tmp_path.rglob("config.pickle"))


def test_rerunning_a_pickle_is_refused_and_not_executed(refused, tmp_path):
    (tmp_path / "job.pickle").write_bytes(pickle.dumps(Malicious(tmp_path / "victim")))
    for flag in ("--experimental-rerun", "--exp"):
        assert "--experimental-rerun" in refused(flag, str(tmp_path / "job.pickle"))
        refused(f"{flag}={tmp_path / 'job.pickle'}")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WANDB_API_KEY", "${{oc.env:{}}}"),
        ("HF_TOKEN", "'a ${{oc.env:{}}}'"),
        ("AWS_SECRET_ACCESS_KEY", "${{oc.env:{},x}}"),
        ("MY_PASSWORD", "${{oc.${{logger.project}}:{}}}"),
    ],
)
def test_a_secret_of_the_environment_is_not_taken_into_a_value(name, text, refused):
    arguments = [f"logger.group={text.format(name)}", "logger.project=env", *DUFM]
    sentence = refused(*arguments, environment=os.environ | {name: KEY}, execute=False)
    nested = "logger.project" in text  # which Hydra's grammar does not take at all
    reason = "cannot be read" if nested else f"${{oc.env:{name}}} would put a secret into the record"
    assert KEY not in sentence and reason in sentence


def test_other_variables_of_the_environment_may_be_taken(tmp_path):
    done = commands().run(
        "logger.group=${oc.env:PLACE}", *DUFM, folder=tmp_path, execute=False, environment=os.environ | {"PLACE": "x"}
    )
    assert done.code == 0 and done.ran[0]["logger"]["group"] == "x"


def test_a_key_in_the_environment_is_nowhere_in_what_a_run_leaves_or_says(tmp_path):
    arguments = [argument for argument in DUFM if argument != "logger=none"]
    done = commands().run(
        *arguments, "hydra.run.dir=run", folder=tmp_path, environment=os.environ | {"WANDB_API_KEY": KEY}
    )
    assert done.code == 0 and KEY not in done.out + done.err
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any("wandb" in path.parts for path in files)
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        *[(name, False) for name in ("with spaces/größe 日本語", "-rf", "--help", "a\nb", "link/x")],
        *[(name, True) for name in ("100%s%d", 'a\'b"c"$HOME,d=e;f\\')],
    ],
)
def test_a_run_leaves_its_record_in_a_folder_of_any_name(name, drawn, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    quoted = "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
    done = commands().run(f"hydra.run.dir={quoted}", *DUFM, f"record.figures={drawn}", folder=tmp_path)
    assert done.code == 0 and "Traceback" not in done.err, done.err
    run = tmp_path / name
    for file in (
        "record.csv",
        "summary.json",
        "tensors.safetensors",
        ".hydra/config.yaml",
        *["figures/collapse.png"] * drawn,
    ):
        assert (run / file).stat().st_size > 0
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"


@pytest.mark.parametrize("place", ["sealed/run", "sealed"])
def test_a_folder_without_the_right_to_write_is_refused(place, refused, tmp_path):
    (tmp_path / "here" / "sealed").mkdir(parents=True)
    (tmp_path / "here" / "sealed").chmod(0o555)
    assert "no right to write" in refused(f"hydra.run.dir={place}", *DUFM, privileged=False)
