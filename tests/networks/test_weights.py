import argparse
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from pipeline.networks import Backbone, build_backbone
from pipeline.networks.weights import load_weights
from pipeline.runs.given_weights import run_weights, trained_as

DIGIT = (1, 8, 8)
# Beside the backbone's own tensors: what trains it, and values that are no tensors.
CLASSIFIER = {"weight": torch.ones(2, 64), "bias": torch.ones(2)}


def resnet(seed: int) -> Backbone:
    return build_backbone("resnet20", DIGIT, seed=seed)


@pytest.fixture
def backbone() -> Backbone:
    return resnet(0)


def weights_of(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.network.state_dict().items()}


OTHER = weights_of(resnet(1))


def check_loaded(backbone: Backbone, expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in weights_of(backbone).items():
        assert torch.equal(tensor, expected[name]), name


def refusal(backbone: Backbone, path, message: str, key: str = "backbone.checkpoint") -> str:
    """The error of loading a file: one sentence of the right form, after which the backbone is as it was."""
    before = weights_of(backbone)
    with pytest.raises(ValueError, match=message) as error:
        load_weights(backbone, path, key)
    check_loaded(backbone, before)
    text = str(error.value)
    assert text.startswith(f"{key}={path} ") and text.endswith(".") and "\n" not in text and "; allowed: " in text
    return text


def saved(path, content: object, **options):
    torch.save(content, path, **options)
    return path


def nested(path, tensors, into=None):
    """Tensors in dicts within dicts: `state_dict.ema` is a dict `ema` in a dict `state_dict`."""
    outer, _, inner = path.partition(".")
    if not inner:
        return {outer: tensors}
    return {outer: (into or {}).get(outer, {}) | nested(inner, tensors)}


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("prefix", ["", "network.", "module.", "backbone.network.", "module._orig_mod.model.encoder."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
def test_a_state_dict_is_loaded_whatever_wraps_it(backbone, tmp_path, prefix, wrapper):
    tensors = prefixed(prefix, OTHER)
    content = tensors if wrapper is None else {"epoch": 3, "optimizer": {"lr": [0.1]}, wrapper: tensors}
    assert load_weights(backbone, saved(tmp_path / "w.pt", content)) == []
    check_loaded(backbone, OTHER)


def test_both_formats_of_torch_and_safetensors_are_read(backbone, tmp_path):
    paths = [tmp_path / "w.safetensors", tmp_path / "W.SAFETENSORS"]
    for path in paths:
        save_file(prefixed("network.", OTHER), path)
    paths.append(saved(tmp_path / "old.pth", OTHER, _use_new_zipfile_serialization=False))
    for path in paths:
        fresh = resnet(0)
        assert load_weights(fresh, path) == []
        check_loaded(fresh, OTHER)


@pytest.mark.parametrize(
    "classifier", ["classifier.", "head.", "fc.", "module.classifier.", "network.head.fc.", "head."]
)
def test_the_tensors_of_a_classifier_are_left_out_and_told(backbone, tmp_path, classifier):
    extra = prefixed(classifier, CLASSIFIER)
    path = saved(tmp_path / "w.ckpt", {"state_dict": prefixed("backbone.network.", OTHER) | extra})
    assert load_weights(backbone, path) == list(extra)
    check_loaded(backbone, OTHER)


def test_the_heads_in_a_runs_file_are_left_out_silently(backbone, tmp_path):
    save_file(
        prefixed("network.", OTHER) | {"head/1": torch.ones(2), "head/12": torch.ones(2)}, tmp_path / "w.safetensors"
    )
    assert load_weights(backbone, tmp_path / "w.safetensors") == []


def test_a_checkpoint_that_lightning_wrote_of_our_learner_is_loaded(tmp_path):
    import pytorch_lightning as pl

    class Learner(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone, self.classifier = build_backbone("mlp", DIGIT, hidden=[4], seed=1), nn.Linear(4, 2)

        def training_step(self, batch, index):
            return self.classifier(self.backbone(batch)).square().sum()

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters())

    learner = Learner()
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_steps=1, default_root_dir=tmp_path, enable_checkpointing=False, **options)
    trainer.fit(learner, torch.utils.data.DataLoader(torch.ones(2, *DIGIT), num_workers=0, batch_size=2))
    trainer.save_checkpoint(tmp_path / "w.ckpt")
    backbone = build_backbone("mlp", DIGIT, hidden=[4])
    assert load_weights(backbone, tmp_path / "w.ckpt") == ["classifier.weight", "classifier.bias"]
    check_loaded(backbone, weights_of(learner.backbone))


class Nested(nn.Module):
    """A network whose own names start with words that are prefixes elsewhere, or name a classifier."""

    def __init__(self):
        super().__init__()
        self.flatten, self.model, self.encoder = nn.Flatten(), nn.Linear(64, 3), nn.Linear(3, 3)
        self.head = nn.Sequential(nn.Linear(3, 3))

    def forward(self, x):
        return self.head(self.encoder(self.model(self.flatten(x))))


@pytest.mark.parametrize("prefix", ["", "network.", "backbone.network.", "model.", "model.model."])
def test_a_network_whose_own_names_look_like_prefixes_gets_its_weights(tmp_path, prefix):
    backbone, other = (Backbone(Nested(), DIGIT, name="own") for _ in range(2))
    path = saved(tmp_path / "w.pt", prefixed(prefix, weights_of(other)) | prefixed("classifier.", CLASSIFIER))
    assert load_weights(backbone, path) == ["classifier.weight", "classifier.bias"]
    check_loaded(backbone, weights_of(other))


def test_of_two_networks_in_a_file_the_one_that_fits_is_meant(tmp_path):
    backbone, other = (Backbone(nn.Sequential(nn.Flatten(), nn.Linear(64, d)), DIGIT, name="own") for d in (3, 4))
    tensors = prefixed("encoder.", weights_of(other)) | prefixed("backbone.", weights_of(backbone))
    wanted = weights_of(backbone)
    assert load_weights(backbone, saved(tmp_path / "w.pt", tensors)) == ["encoder.1.weight", "encoder.1.bias"]
    check_loaded(backbone, wanted)


PROGRAMS = {
    "net beside accuracy and epoch": lambda own: {"net": own, "acc": 91.2, "epoch": 7},
    "torch.compile": lambda own: {"model": prefixed("_orig_mod.", own)},
    "an averaged model": lambda own: prefixed("module.", own) | {"n_averaged": torch.tensor(3)},
    "a criterion beside": lambda own: {
        "state_dict": prefixed("model.", own) | {"criterion.weight": torch.ones(2)},
        "epoch": 3,
    },
    "an optimizer beside": lambda own: {
        "resnet": own,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
    },
    "settings beside": lambda own: {
        "state_dict": prefixed("resnet.", own),
        "args": argparse.Namespace(lr=0.1, data=Path("data")),
        "best": np.float64(0.5),
        "config": OmegaConf.create({"lr": 0.1, "steps": [1, 2]}),
    },
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_checkpoint_of_another_program_is_loaded_from_under_its_prefix(backbone, tmp_path, program):
    left_out = load_weights(backbone, saved(tmp_path / "w.pt", PROGRAMS[program](OTHER)))
    check_loaded(backbone, OTHER)
    assert not any("conv" in name or "optimizer" in name for name in left_out)
    assert ("criterion.weight" in left_out) == (program == "a criterion beside")


TWICE = {
    "a teacher and a student": ("teacher", "student"),
    "two encoders": ("encoder_q", "encoder_k"),
    "weights and their average": ("state_dict", "state_dict_ema"),
    "inside a wrapper": ("state_dict.model", "state_dict.ema"),
}


@pytest.mark.parametrize("first, second", TWICE.values(), ids=TWICE)
def test_of_two_states_of_the_network_none_is_obvious_and_the_prefix_is_asked_for(backbone, tmp_path, first, second):
    others = {name: tensor + 1 for name, tensor in OTHER.items()}
    path = saved(tmp_path / "w.pt", nested(first, OTHER) | nested(second, others, nested(first, OTHER)))
    before = weights_of(backbone)
    text = refusal(backbone, path, "holds the network several times, under ")
    assert first in text and second in text and "backbone.checkpoint_prefix=" in text
    check_loaded(backbone, before)
    for prefix, wanted in ((first, OTHER), (f"{second}.", others)):
        (told,) = load_weights(backbone, path, prefix=prefix)
        check_loaded(backbone, wanted)
        assert "tensors)" in told


def test_the_same_state_twice_is_one_state(backbone, tmp_path):
    load_weights(backbone, saved(tmp_path / "w.pt", {"model": OTHER, "ema": OTHER}))
    check_loaded(backbone, OTHER)


def test_a_prefix_that_is_not_there_is_refused_with_those_that_are(backbone, tmp_path):
    path = saved(tmp_path / "w.pt", {"teacher": OTHER, "student": OTHER})
    with pytest.raises(
        ValueError, match=r"checkpoint_prefix=studnt \(did you mean student\?\); allowed: teacher, student"
    ):
        load_weights(backbone, path, prefix="studnt")


def test_settings_in_a_file_are_never_made(tmp_path):
    path = saved(tmp_path / "w.pt", {"model": OTHER, "config": OmegaConf.create({"a": "${oc.env:HOME}"})})
    code = (
        "import sys; from pathlib import Path; from pipeline.networks.weight_files import named_tensors; "
        "named_tensors(Path(sys.argv[1]), 'k'); assert 'omegaconf' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_counters_of_batches_may_be_missing_and_stay(backbone, tmp_path):
    tensors = {name: tensor for name, tensor in OTHER.items() if not name.endswith("num_batches_tracked")}
    backbone.network.bn1.num_batches_tracked.fill_(7)
    assert load_weights(backbone, saved(tmp_path / "w.pt", tensors)) == []
    assert backbone.network.bn1.num_batches_tracked == 7
    assert torch.equal(backbone.network.conv1.weight, OTHER["conv1.weight"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_in_another_precision_are_converted(backbone, tmp_path, dtype):
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in OTHER.items()}
    load_weights(backbone, saved(tmp_path / "w.pt", tensors))
    check_loaded(backbone, {name: tensor.to(OTHER[name].dtype) for name, tensor in tensors.items()})


def test_all_kinds_of_misfits_are_told_by_tensor(backbone, tmp_path):
    tensors = prefixed("backbone.network.", OTHER)
    tensors["backbone.network.layer1.0.conv1.weight"] = torch.zeros(64, 64, 3, 3)
    tensors["backbone.network.fc2.bias"] = torch.zeros(3)
    del tensors["backbone.network.layer3.2.bn1.bias"]
    text = refusal(backbone, saved(tmp_path / "w.pt", tensors), "does not fit backbone=resnet20: ")
    assert text.endswith(
        "does not fit backbone=resnet20: layer1.0.conv1.weight is (64, 64, 3, 3) in the file and (16, 16, 3, 3) in "
        "the network; fc2.bias is not in the network; layer3.2.bn1.bias is missing in the file; "
        "allowed: the weights of the same network."
    )


def test_of_many_misfits_three_are_told_and_the_others_counted(backbone, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"classifier.weight": torch.ones(2), "head/1": torch.ones(2)}, path)
    count = sum(not name.endswith("num_batches_tracked") for name in OTHER)
    text = refusal(backbone, path, "is missing in the file", key="backbone.from_run")
    assert text.count("is missing in the file") == 3 and f"(and {count - 3} more); allowed" in text
    save_file({"head/1": torch.ones(2)}, path)
    refusal(backbone, path, "does not fit backbone=resnet20: conv1.weight is missing in the file; ")


def test_a_classifier_that_the_network_has_must_fit(tmp_path):
    backbone = Backbone(Nested(), DIGIT, name="own")
    tensors = weights_of(backbone) | {"head.0.weight": torch.ones(10, 3)}
    refusal(backbone, saved(tmp_path / "w.pt", tensors), r"head\.0\.weight is \(10, 3\) in the file and \(3, 3\) in")


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_weights_that_are_no_real_numbers_do_not_fit(backbone, tmp_path, dtype):
    tensors = OTHER | {"bn1.weight": torch.ones(16, dtype=dtype)}
    name = str(dtype).removeprefix("torch.")
    refusal(backbone, saved(tmp_path / "w.pt", tensors), f"bn1.weight is {name} in the file and float32 in the network")


@pytest.mark.parametrize(
    "value", [torch.tensor(float("nan")), torch.tensor(float("inf")), torch.tensor(1e300, dtype=torch.float64)]
)
def test_weights_that_are_not_finite_are_refused_by_name(backbone, tmp_path, value):
    tensors = OTHER | {"bn1.weight": value.repeat(16)}
    refusal(backbone, saved(tmp_path / "w.pt", tensors), r"holds NaN or infinity in bn1\.weight; allowed: finite")


@pytest.mark.parametrize(
    "content", [torch.ones(3), [torch.ones(3)], {}, {"a": 1}, {"state_dict": {}}, {1: torch.ones(3)}]
)
def test_a_file_without_named_tensors_is_refused(backbone, tmp_path, content):
    refusal(backbone, saved(tmp_path / "w.pt", content), "holds no tensors by name")


def test_a_file_that_is_not_there_and_a_folder_are_refused(backbone, tmp_path):
    refusal(backbone, tmp_path / "none.pt", r"none\.pt does not exist; allowed: a \.safetensors file, or a state dict")
    refusal(backbone, tmp_path, "is a folder; allowed")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keep", [0, 1, 0.3, 0.999])
def test_a_truncated_file_is_refused(backbone, tmp_path, name, zipped, keep):
    path = tmp_path / name
    save_file(OTHER, path) if name.endswith("s") else saved(path, OTHER, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    refusal(backbone, path, r"cannot be read, it may be damaged \(.+\); allowed")


@pytest.mark.parametrize("name", ["w.pt", "w.ckpt", "w.safetensors"])
@pytest.mark.parametrize(
    "content", [b"hello world\n", b"{}", bytes(range(256)) * 40, b"PK\x03\x04 no zip", b"\x80\x04"]
)
def test_a_file_of_another_kind_is_refused(backbone, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refusal(backbone, tmp_path / name, r"cannot be read, it may be damaged \(.+\)")


class Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return os.mkdir, (str(self.victim),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_never_run(backbone, tmp_path, zipped):
    victim = tmp_path / "victim"
    content = OTHER | {"callback": Malicious(victim)}
    path = saved(tmp_path / "w.pt", content, _use_new_zipfile_serialization=zipped)
    text = refusal(backbone, path, r"holds more than tensors and plain containers \(posix\.mkdir\)")
    assert "damaged" not in text and not victim.exists()


def test_code_in_a_bare_pickle_is_never_run(backbone, tmp_path):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(Malicious(tmp_path / "victim"), protocol))
        refusal(backbone, tmp_path / "w.pkl", "holds more than tensors|cannot be read")
        assert not (tmp_path / "victim").exists()


def test_a_whole_module_and_a_script_are_refused_as_more_than_tensors(backbone, tmp_path):
    path = saved(tmp_path / "w.pt", backbone.network)
    refusal(
        backbone,
        path,
        r"holds more than tensors and plain containers \(pipeline\.networks\.architectures\.resnet20\.ResNet20\)",
    )
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(path)
    refusal(backbone, path, "holds more than tensors and plain containers")


def run_folder(folder, *, status="completed", protocol="frozen_features", weights=False, config=True):
    (folder / ".hydra").mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"status": status, "protocol": protocol}))
    if config:
        content = {"backbone": {"name": "resnet20", "epochs": 5}, "protocol": {"name": protocol}}
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(content))
    if weights:
        (folder / "checkpoints").mkdir()
        save_file(
            prefixed("network.", OTHER) | {"head/1": torch.ones(2)}, folder / "checkpoints" / "backbone.safetensors"
        )
    return folder


def test_the_weights_of_a_run_are_found_and_loaded(backbone, tmp_path):
    path = run_weights(run_folder(tmp_path / "run", weights=True))
    assert path == tmp_path / "run" / "checkpoints" / "backbone.safetensors"
    assert load_weights(backbone, path, "backbone.from_run") == []
    check_loaded(backbone, OTHER)


def check_no_weights(folder, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        run_weights(folder)
    text = str(error.value)
    assert text.startswith(f"backbone.from_run={folder} ") and "\n" not in text and text.endswith(".")


def test_what_is_not_a_runs_folder_is_refused_with_what_is_missing(tmp_path):
    check_no_weights(tmp_path / "none", "does not exist; allowed: the folder of a run")
    (tmp_path / "file").touch()
    check_no_weights(tmp_path / "file", "is not a folder; allowed")
    check_no_weights(
        tmp_path, r"is not a run's folder \(no \.hydra/config\.yaml, no summary\.json, no checkpoints\); allowed"
    )
    (tmp_path / "multirun.yaml").touch()
    check_no_weights(tmp_path, "it holds the jobs of a sweep")


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_a_run_whose_backbone_is_not_finished_is_refused_with_its_status(tmp_path, status):
    folder = run_folder(tmp_path / "run", status=status)
    check_no_weights(folder, rf"has no checkpoints/backbone\.safetensors, and the run's status is {status}; allowed")


def test_a_run_without_a_readable_summary_has_an_unknown_status(tmp_path):
    folder = run_folder(tmp_path / "run")
    for text in ("{", "[]"):
        (folder / "summary.json").write_text(text)
        check_no_weights(folder, "the run's status is unknown")


@pytest.mark.parametrize("summary", [True, False])
def test_a_run_of_a_protocol_without_backbone_is_refused_as_such(tmp_path, summary):
    folder = run_folder(tmp_path / "run", protocol="dufm")
    if not summary:
        (folder / "summary.json").unlink()
    check_no_weights(folder, "is a run with protocol=dufm, which has no backbone")


def test_what_a_run_was_trained_as_is_its_backbones_settings(tmp_path):
    assert trained_as(run_folder(tmp_path / "run")) == {"name": "resnet20", "epochs": 5}


@pytest.mark.parametrize("text", [None, "", "[]", "a: 1", "backbone: 3", "a: [", "\x00", b"\xff\xfe\xff"])
def test_what_a_run_was_trained_as_is_empty_if_unreadable(tmp_path, text):
    folder = run_folder(tmp_path / "run", config=False)
    if text is not None:
        (folder / ".hydra" / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert trained_as(folder) == {}
