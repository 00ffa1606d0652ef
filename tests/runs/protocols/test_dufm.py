"""Problems of all shapes through the configuration: what they descend on, what is recorded, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from configurations import DUFM, configured, perform
from safetensors.torch import load_file, save_file

from pipeline.config import Config
from pipeline.dufm import Anchor, objective
from pipeline.runs.shapes import class_sizes
from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import read_record, read_summary

SMALL = DUFM | {
    "head.depth": 1,
    "head.weight_decay": 1e-2,
    "head.feature_decay": 1e-2,
    "descent.steps": 3,
    "descent.seeds": 1,
}


def small(settings: dict) -> Config:
    return configured(SMALL | settings)


def run(folder: Path, settings: dict) -> tuple[dict, dict[str, torch.Tensor]]:
    """Summary and tensors of a run."""
    perform(folder, SMALL | settings)
    return read_summary(folder), load_file(folder / "tensors.safetensors")


def losses(folder: Path) -> dict[int, float]:
    record = read_record(folder)
    rows = record[record.metric == "loss"]
    return dict(zip(rows.step.tolist(), rows.value.tolist(), strict=True))


# DUFM_FAMILY.md, section T: values after 0, 1, 100 and 300 steps, by an independent program.
TRAJECTORIES = {
    "T1": (1.04562294069, 1.03055943549, 0.020888808445, 0.0193541676096),
    "T2": (1.12135695295, 1.11824391742, 0.384351231164, 0.275480047871),
    "T3": (1.11466113354, 1.09876103318, 0.267861163558, 0.261823462253),
    "T4": (3.08536612155, 2.08680595025, 0.0669883753474, 0.0406171625721),
    "T5": (1.91218238575, 1.83279920059, 0.887052832823, 0.887041327332),
    "T6": (2.40940852233, 2.21211282753, 0.673153841745, 0.673078759893),
    "T7": (0.918913976247, 0.810410221152, 0.101291696981, 0.024452491188),
    "T8": (0.520915444064, 0.507560706657, 0.248198481697, 0.129052718196),
}
THREE = {"protocol.class_sizes": [4, 3, 2], "head.feature_decay": 5e-4, "descent.lr": 0.5}
ONE, TWO = {"head.depth": 1, "head.weight_decay": 1e-3}, {"head.depth": 2, "head.weight_decay": [1e-3, 2e-3]}
WIDE = {"head.depth": 3, "head.weight_decay": [1e-3, 2e-3, 3e-3], "head.width": 6}
CE, LINEAR = {"head.loss": "cross_entropy"}, {"head.activation": "linear"}
CONTRASTIVE = {
    "protocol.class_sizes": [3, 3, 2],
    "head.depth": 0,
    "head.loss": "supervised_contrastive",
    "head.temperature": 0.5,
    "head.feature_decay": 0.0,
    "descent.lr": 0.2,
}
CASES = {
    "T1": THREE | TWO | CE | LINEAR | {"head.width": 5},
    "T2": THREE | WIDE | CE,
    "T3": THREE | ONE | CE | {"features.constraint": "nonnegative"},
    "T4": TWO | LINEAR | {"head.width": 5, "head.feature_decay": 5e-4, "descent.lr": 0.2, "head.bias": "last"},
    "T5": CONTRASTIVE | {"features.constraint": "nonnegative_sphere"},
    "T6": CONTRASTIVE | {"features.constraint": "sphere"},
    "T7": THREE | ONE | {"features.anchor_strength": 0.02},
    "T8": THREE | WIDE,
}


def grid(rows: int, columns: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(first, first + rows).double()[:, None], torch.arange(columns).double()


def write_start(path: Path, name: str) -> None:
    """The start that section T prescribes; widths 5, 6, 5 where there are three layers."""
    samples = {"T4": 12, "T5": 8, "T6": 8}.get(name, 9)
    widths = {"T1": [5, 5], "T4": [5, 5], "T2": [5, 6, 5], "T8": [5, 6, 5], "T5": [], "T6": []}.get(name, [5])
    i, a = grid(samples, 5)
    tensors = {"features/1": 0.5 * torch.sin(1.3 * i + 0.7 * a + 0.1)}
    for layer, (outputs, inputs) in enumerate(zip([*widths[1:], 3], widths, strict=False), start=1):
        o, a = grid(outputs, inputs)
        tensors[f"weights/{layer}"] = 0.4 * torch.cos(0.9 * o + 1.1 * a + layer)
    save_file(tensors, path)


@pytest.mark.parametrize("name", list(TRAJECTORIES))
def test_published_trajectories_come_out_through_the_configuration(name, tmp_path):
    start = tmp_path / "start.safetensors"
    write_start(start, name)
    settings = CASES[name] | {"protocol.start": "file", "protocol.start_file": str(start), "descent.steps": 300}
    if name == "T4":
        i = torch.arange(1, 13).double()
        rows = (i.sin(), 0.5 * (1.7 * i).cos() + 0.3 * i.sin(), 0.2 * (0.3 * i**2).sin())
        targets = torch.stack(rows, dim=1) + torch.tensor([1.0, -2.0, 0.5]).double()
        np.save(tmp_path / "targets.npy", targets.numpy())
        settings["protocol.targets"] = str(tmp_path / "targets.npy")
    if name == "T7":
        i, a = grid(9, 5)
        np.savetxt(tmp_path / "anchor.csv", (0.5 * i + 0.3 * a).cos().numpy(), delimiter=",", fmt="%.18e")
        settings["features.anchor"] = str(tmp_path / "anchor.csv")
    summary, tensors = run(tmp_path / "run", settings | {"protocol.num_features": 5})
    found = losses(tmp_path / "run")
    assert [found[step] for step in (0, 1, 100, 300)] == pytest.approx(TRAJECTORIES[name], rel=1e-9, abs=0)
    assert summary["loss"]["total"] == pytest.approx([TRAJECTORIES[name][-1]], rel=1e-9, abs=0)
    assert ("bias" in tensors) == ("regression" in summary) == (name == "T4")
    if name == "T4":
        regression = summary["regression"]
        total = float((targets - targets.mean(0)).square().sum())
        assert regression["r_squared"] == pytest.approx([1 - 24 * summary["loss"]["fit"][0] / total], rel=1e-12)
        assert 0 < regression["nrc3"][0] < 1 and 0 < regression["nrc2"][0] < 1 and regression["nrc3_reason"] is None
        assert len(regression["explained_variance"][0]) == 5
    json.dumps(summary, allow_nan=False)
    if name in ("T5", "T6"):  # the sizes differ: a theorem speaks of features >= 0 only, whatever the sizes
        assert summary["verdict"]["layers"][0]["dnc1"]["theorem"] == (name == "T5")
        assert summary["sits_at"][0]["name"] == "global optimum" and summary["without_direction"] == 0


@pytest.mark.parametrize(
    ("given", "classes", "sizes"),
    [
        ([40, 20, 10, 2], 2, (40, 20, 10, 2)),
        (None, 3, (50, 50, 50)),
        ({"long_tail": {"largest": 100, "ratio": 0.01}}, 3, (100, 10, 1)),
        ({"long_tail": {"largest": 100, "ratio": 0.01}}, 5, (100, 31, 10, 3, 1)),
        ({"step": {"largest": 100, "ratio": 10, "share": 0.5}}, 4, (100, 100, 10, 10)),
        ({"step": {"largest": 30, "ratio": 3, "share": 0.3}}, 10, (30,) * 7 + (10,) * 3),
    ],
)
def test_class_sizes_are_a_list_or_a_formula(given, classes, sizes):
    config = Config().protocol
    config.class_sizes, config.num_classes = given, classes
    assert class_sizes(config) == sizes


def test_the_recorded_objective_is_that_of_the_tensors_left_behind(tmp_path):
    settings = {
        "protocol.class_sizes": [5, 2, 1],
        "protocol.targets": "teacher",
        "protocol.num_classes": 3,
        "head.bias": True,
        "head.depth": 2,
        "features.constraint": "nonnegative",
        "features.anchor": "inputs",
        "features.anchor_strength": 0.6,
        "features.anchor_steps": 3,
        "descent.seeds": 2,
        "protocol.feature_scale": 3.0,
    }
    summary, held = run(tmp_path, settings)
    config = small(settings)
    assert config.head.bias == "last"
    value = objective(
        *(held["features/1"], [held["weights/1"], held["weights/2"]], None, 1e-2, 1e-2, "relu"),
        bias=held["bias"],
        targets=held["targets"],
        anchor=Anchor(held["anchor"], 0.2),
    )
    for name in ("total", "fit", "weight_penalty", "feature_penalty", "anchor_penalty"):
        assert summary["loss"][name] == pytest.approx(getattr(value, name).tolist(), rel=1e-12)
    assert summary["problem"]["anchor_strength"] == pytest.approx(0.2) and held["features/1"].min() == 0
    assert summary["accuracy"]["train"] is None and "train_accuracy" not in {it["name"] for it in summary["headline"]}


def test_one_hot_targets_from_a_file_are_the_labels(tmp_path):
    labels = torch.arange(2).repeat_interleave(torch.tensor([3, 5]))
    for name, content in (("t.csv", None), ("t.npy", None), ("t.safetensors", "targets")):
        matrix = torch.nn.functional.one_hot(labels).double()
        if content:
            save_file({content: matrix, "other": matrix + 1}, tmp_path / name)
        elif name.endswith("csv"):
            np.savetxt(tmp_path / name, matrix.numpy(), delimiter=",")
        else:
            np.save(tmp_path / name, matrix.numpy())
        _, found = run(tmp_path / f"run {name}", {"protocol.targets": str(tmp_path / name)})
        summary, same = run(
            tmp_path / f"sized {name}", {"protocol.class_sizes": [3, 5]} | {"protocol.targets": str(tmp_path / name)}
        )
        _, expected = run(tmp_path / f"labels {name}", {"protocol.class_sizes": [3, 5]})
        assert torch.equal(found["weights/1"], expected["weights/1"])
        assert torch.equal(same["features/1"], expected["features/1"])
        assert summary["layers"][0]["dnc1"][0] is not None


def test_without_classes_metrics_of_classes_are_undefined_and_the_run_says_so(tmp_path):
    np.save(tmp_path / "t.npy", np.random.default_rng(0).normal(size=(7, 3)))
    summary, _ = run(tmp_path / "run", {"protocol.targets": str(tmp_path / "t.npy")})
    assert summary["layers"][0]["dnc1"] == [None] and summary["layers"][0]["rank_weight"] == [3.0]
    assert any("no classes" in note for note in summary["verdict"]["notes"])
    assert summary["accuracy"]["train"] is None and summary["problem"]["num_outputs"] == 3


def test_a_start_from_a_run_goes_on_where_that_run_ended(tmp_path):
    settings = {"head.depth": 2, "head.loss": "cross_entropy", "head.bias": "last", "descent.seeds": 2}
    run(tmp_path / "whole", settings | {"descent.steps": 8})
    run(tmp_path / "half", settings | {"descent.steps": 3})
    start = {"protocol.start": "file", "protocol.start_file": str(tmp_path / "half/tensors.safetensors")}
    run(tmp_path / "rest", settings | start | {"descent.steps": 5})
    whole, rest = (load_file(tmp_path / name / "tensors.safetensors") for name in ("whole", "rest"))
    for name in ("features/1", "weights/2", "bias"):
        torch.testing.assert_close(rest[name], whole[name], rtol=1e-12, atol=1e-14)
    run(tmp_path / "noisy", settings | start | {"protocol.start_noise": 0.5, "descent.steps": 1})
    assert losses(tmp_path / "rest")[0] != losses(tmp_path / "noisy")[0]


def test_a_row_without_direction_is_put_on_an_axis_and_counted(tmp_path):
    features = torch.rand(4, 6, dtype=torch.float64)
    features[1] = torch.tensor([-3.0, -1.0, -2.0, -4.0, -5.0, -6.0])
    features[2] = 0.0
    save_file({"features/1": features}, tmp_path / "start.safetensors")
    settings = CONTRASTIVE | {"features.constraint": "nonnegative_sphere", "protocol.class_sizes": [2, 2]}
    start = {"protocol.start": "file", "protocol.start_file": str(tmp_path / "start.safetensors")}
    summary, held = run(tmp_path / "run", settings | start | {"descent.lr": 1e-12})
    assert summary["without_direction"] == 2
    torch.testing.assert_close(held["features/1"][0, 1:3].argmax(dim=1), torch.tensor([1, 0]))
    norms = held["features/1"].norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-12, atol=0)


REFUSED = {
    "contrastive, a class of one": ({**CONTRASTIVE, "protocol.class_sizes": [3, 1]}, "needs 2 samples of each class"),
    "contrastive, samples": (
        {"head.loss": "supervised_contrastive", "protocol.samples_per_class": 1},
        "protocol.samples_per_class=1 has a class of 1",
    ),
    "bias, contrastive": ({**CONTRASTIVE, "head.bias": "last"}, "head.bias=last does not go with head.loss=supervised"),
    "bias, depth 0": ({"head.depth": 0, "head.bias": "last"}, "head.bias=last does not go with head.depth=0"),
    "decay of no bias": ({"head.bias_decay": 0.1}, "head.bias_decay=0.1 is of a bias, and head.bias=none; allowed: 0"),
    "beta": ({"features.anchor": "inputs", "features.anchor_strength": -0.1}, "features.anchor_strength=-0.1 is out"),
    "no anchor": ({"features.anchor_strength": 0.1}, "features.anchor=none"),
    "an empty class": ({"protocol.class_sizes": [3, 0]}, "makes classes of [3,0] samples"),
    "an empty tail": (
        {"protocol.class_sizes": {"long_tail": {"largest": 9, "ratio": 0.01}}, "protocol.num_classes": 3},
        "makes classes of [9,0,0] samples",
    ),
    "formula": ({"protocol.class_sizes": {"longtail": {}}}, "(did you mean long_tail?)"),
    "numbers of a formula": (
        {"protocol.class_sizes": {"step": {"largest": 9, "ratio": 0.5, "share": 0.5}}},
        "ratio is out of range; allowed: a number from 1",
    ),
    "number of classes": ({"protocol.class_sizes": [3, 2], "protocol.num_classes": 3}, "protocol.num_classes=3"),
    "targets that are not there": ({"protocol.targets": "nothing.npy"}, "protocol.targets=nothing.npy is not there"),
    "targets of another kind": ({"protocol.targets": "label"}, "names no matrix"),
    "targets, contrastive": ({**CONTRASTIVE, "protocol.targets": "teacher"}, "compares labels"),
    "start": ({"protocol.start": "colapsed_solution"}, "allowed: random, balanced, spectral, file"),
    "no file": ({"protocol.start": "file"}, "protocol.start=file needs protocol.start_file"),
    "noise on nothing": (
        {"protocol.start_noise": 0.1},
        "protocol.start_noise=0.1 is added to a start that is not random",
    ),
    "frozen": ({"head.inputs": "frozen", "features.constraint": "sphere"}, "features.constraint=sphere binds free"),
    "outputs": ({"head.depth": 0}, "allowed: protocol.num_features=2"),
    "a frame without room": (
        {
            **CE,
            **ONE,
            "features.constraint": "nonnegative",
            "protocol.class_sizes": [3, 2, 2],
            "protocol.num_features": 2,
        },
        "protocol.num_features=2 is less than the 3 classes",
    ),
    "spectral": ({"protocol.start": "spectral"}, "with head.activation=relu"),
    "spectral, narrow": (
        {"protocol.start": "spectral", "head.activation": "linear", "protocol.class_sizes": [2] * 9, "head.width": 7},
        "must be at least 8",
    ),
    "balanced": ({"protocol.start": "balanced", "head.feature_decay": 0.0}, "head.feature_decay=0.0"),
    "structure without decay": (
        {"protocol.start": "collapsed", "head.weight_decay": 0.0},
        "protocol.start=collapsed needs theory, and a weight decay is zero",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_means_nothing_is_refused_in_one_sentence(case):
    settings, sentence = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        small(settings)
    said = str(caught.value)
    assert sentence in said and said.endswith(".") and "\n" not in said and "allowed" in said


JOINT = {
    "protocol.name": "end_to_end",
    "data.classes": [0, 1, 2],
    "data.samples_per_class": 10,
    "backbone.hidden": [16, 8],
    "backbone.epochs": 8,
    "optimizer.lr": 0.1,
    "head.inputs": "frozen",
}


def test_a_network_is_trained_by_the_contrastive_loss_on_unit_features(tmp_path):
    joint = JOINT | {
        "head.depth": 0,
        "head.loss": "supervised_contrastive",
        "features.constraint": "nonnegative_sphere",
    }
    summary, held = run(tmp_path, joint)
    features = held["features/1"][0]
    assert features.min() >= 0 and features.norm(dim=-1) == pytest.approx(1, abs=1e-6)
    found = losses(tmp_path)
    assert found[8] < 0.98 * found[0] and summary["accuracy"] == {"train": None, "test": None}
    labels = held["labels"]
    inner = (features @ features.T / 0.1).fill_diagonal_(-torch.inf)
    pairs = (labels[:, None] == labels).double().fill_diagonal_(0) / 9
    expected = (inner.logsumexp(dim=1) - (inner.clamp(min=-1e9) * pairs).sum(dim=1)).mean()
    assert summary["loss"]["total"] == pytest.approx([expected.item()], rel=1e-9)


def test_the_bias_of_a_trained_head_is_not_decayed_and_is_part_of_what_is_recorded(tmp_path):
    summary, held = run(tmp_path, JOINT | {"head.depth": 2, "head.bias": "last", "optimizer.weight_decay": 0.02})
    assert held["bias"].shape == (1, 3) and held["bias"].abs().min() > 0
    weights = [held["weights/1"], held["weights/2"]]
    value = objective(held["features/1"], weights, held["labels"], 0.02, bias=held["bias"])
    assert summary["loss"]["total"] == pytest.approx(value.total.tolist(), rel=1e-12)
    decayed = JOINT | {"head.depth": 2, "head.bias": "last", "head.bias_decay": 50.0, "optimizer.weight_decay": 0.02}
    summary, kept = run(tmp_path / "decayed", decayed)
    assert kept["bias"].abs().max() < 0.5 * held["bias"].abs().max()
    value = objective(
        kept["features/1"], [kept["weights/1"], kept["weights/2"]], kept["labels"], 0.02,
        bias=kept["bias"], bias_decay=50.0,
    )  # fmt: skip
    assert summary["loss"]["total"] == pytest.approx(value.total.tolist(), rel=1e-12)
    assert summary["problem"]["bias_decay"] == 50.0 and summary["loss"]["bias_penalty"][0] > 0
    with pytest.raises(ConfigError, match="anchor=inputs ties features that are variables"):
        small(JOINT | {"features.anchor": "inputs"})


def test_descent_with_a_penalised_bias_ends_at_the_closed_form(tmp_path):
    """Beyond the threshold of the mean, which features and bias share."""
    settings = {
        "protocol.class_sizes": [3, 3, 3],
        "head.bias": "last",
        "head.bias_decay": 0.5,
        "descent.steps": 50,
        "descent.lr": 0.5,
        "descent.polish": True,
    }
    summary, held = run(tmp_path, settings)
    assert summary["loss"]["optimum_kind"] == "global optimum" and summary["loss"]["bias_penalty"][0] > 0
    assert summary["loss"]["relative_gap"] == pytest.approx([0.0], abs=1e-10)
    rate = 3 * 3**0.5 * 1e-2 * 1.5 / 0.5  # 1 - q of the mean: N sqrt(Lam) (1 + mu)/mu over sqrt(n)
    assert held["bias"][0].tolist() == pytest.approx([rate / 1.5 / 3] * 3, rel=1e-5)


def test_an_anchor_of_several_steps_ends_at_the_published_value_and_its_path_collapses_step_by_step(tmp_path):
    """DUFM_FAMILY.md, section 6: T = 4, mu = .08, lambda_W = .05 over K (arXiv 2405.00985 as recalled, derived)."""
    i, j = torch.arange(1, 7).double(), torch.arange(1, 16).double()[:, None]
    k = torch.arange(1, 4).repeat_interleave(5).double()[:, None]
    anchor = 0.8 * torch.cos(i * k) + 0.5 * torch.sin(0.7 * i * j + 0.2 * j)
    np.save(tmp_path / "anchor.npy", anchor.numpy())
    settings = {
        "features.anchor": str(tmp_path / "anchor.npy"),
        "features.anchor_strength": 0.08,
        "features.anchor_steps": 4,
        "head.weight_decay": 0.05 / 3,
        "head.feature_decay": 0.0,
        "protocol.class_sizes": [5, 5, 5],
        "descent.lr": 2.0,
        "descent.momentum": 0.9,
        "descent.steps": 1500,
        "descent.records_per_decade": 1,
    }
    summary, _ = run(tmp_path / "run", settings)
    assert summary["loss"]["total"] == pytest.approx([0.0402873734], rel=1e-8)
    path = [entry["dnc1"][0] for entry in summary["anchored_path"]]
    assert path == pytest.approx([0.4764813115, 0.4114002725, 0.3572503253, 0.3132411433, 0.2786410138], rel=1e-6)


@pytest.mark.parametrize(
    ("classes", "start", "best", "polished"),
    [
        (3, "small_code", 0.0292883706, True),
        (4, "small_code_+_1_single_class", 0.0392076550, True),
        (6, "srg", 0.0558175, False),
    ],
)
def test_descent_from_a_low_rank_point_goes_on_to_the_best_value_known_or_below(
    classes, start, best, polished, tmp_path
):
    """The specification's best values are what its searches found, upper bounds of the optimum."""
    decays = {"head.weight_decay": 4e-3, "head.feature_decay": 4e-3}
    sizes = {"head.depth": 4, "head.width": 3 * classes, "protocol.num_features": 3 * classes}
    problem = {"protocol.num_classes": classes, "protocol.samples_per_class": 1, "protocol.start": start}
    descent = {
        "descent.polish": polished,
        "descent.steps": 2000 if polished else 4000,
        "descent.lr": 0.5,
        "descent.momentum": 0.9,
        "protocol.start_noise": 0.02,
    }
    summary, _ = run(tmp_path, decays | sizes | problem | descent | {"descent.records_per_decade": 1})
    (from_where,) = [it["value"] for it in summary["references"] if it["name"].replace(" ", "_").lower() == start]
    (loss,) = summary["loss"]["total"]
    assert 0.97 * best < loss <= best * (1 + 1e-6) and loss < from_where


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"head.depth": 4, "protocol.num_classes": 7, "protocol.start": "srg"}, "r(r-1)/2 classes"),
        (
            {"head.depth": 3, "head.loss": "cross_entropy", "protocol.num_classes": 5, "protocol.start": "low_rank"},
            "an even number of classes",
        ),
    ],
)
def test_a_reference_that_other_numbers_of_classes_have_says_which(changed, said, tmp_path):
    wide = {"head.width": 12, "protocol.num_features": 12}
    with pytest.raises(ConfigError) as caught:
        perform(tmp_path / "run", SMALL | wide | changed)
    assert said in str(caught.value) and f"here are {changed['protocol.num_classes']} classes" in str(caught.value)
    assert not (tmp_path / "run").exists()
