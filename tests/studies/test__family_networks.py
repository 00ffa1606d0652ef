"""Networks under the model's penalties: judged by what theory knows of the model, where they fit and lasted."""

import pandas as pd
import pytest
import torch
from family_results import descent_rows, result_at
from readable import drawn_for
from study_results import one, verdicts

from pipeline.config import BackboneConfig, Config, DataConfig, HeadConfig, OptimizerConfig
from pipeline.metrics import regression_collapse
from pipeline.runs.matrices import teacher
from pipeline.storage.record import Row, read_summary, write_summary
from pipeline.storage.tensors import write_tensors
from pipeline.studies import deep_ce, imbalanced_ce, low_rank, regression
from pipeline.studies._family_networks import networks, networks_figure, smaller, tables_of
from pipeline.studies._imbalanced_networks import geometry
from pipeline.studies._imbalanced_networks import networks_figure as drawn_of
from pipeline.studies._regression_networks import networks_figure as regression_figure
from pipeline.studies.engine.results import Result
from pipeline.theory import Problem, named, references

LOW_RANK = Problem("mse", "relu", (2,) * 10, 4, 4e-3, 4e-3)
LINEAR = Problem("cross_entropy", "linear", (5,) * 10, 3, 2.0**-10, 2.0**-10)


def _network(folder, kind, problem, name, *, loss=None, accuracy=1.0, dnc1=1e-3, epochs=4000, extra=(), width=12):
    """A finished network whose head is at a reference of the model."""
    rows = descent_rows("loss", [0.5, 0.4, 0.2, 0.1], seeds=1)
    rows += [row for layer in "12" for row in descent_rows("dnc1", [1.0, 0.1, 0.01, dnc1], layer, "post", seeds=1)]
    widths = [width] * problem.depth
    made = result_at(folder, f"network_{kind}-seed_0", problem, name, widths, loss, rows, seeds=1)
    places = [("1", "pre"), *((str(layer), "post") for layer in range(2, problem.depth + 1))]
    layers = [{"layer": layer, "tap": tap, "dnc1": [dnc1], **dict(extra)} for layer, tap in places]
    more = {"accuracy": {"train": [accuracy], "test": [0.9]}, "step_units": {"head": "epoch"}, "layers": layers}
    write_summary(made.folder, {**read_summary(made.folder), **more, "backbone_layers": []})
    write_tensors(made.folder, dict(made.tensors) | {"features/1": made.tensors["features/1"][0]}, max_mb=10)
    config = Config(
        head=HeadConfig(depth=problem.depth, loss=problem.loss, activation=problem.activation),
        data=DataConfig(name="mnist"),
        backbone=BackboneConfig(name="mlp", epochs=epochs, batch_size=10),
        optimizer=OptimizerConfig(name="sgd", lr=0.5, momentum=0.0, schedule="constant"),
    )
    return Result(made.point, config, made.folder)


def _srg():
    return next(state for state in references(LOW_RANK) if state.name.startswith("SRG"))


def test_a_network_below_collapse_is_told_from_one_at_collapse(tmp_path):
    low = _network(tmp_path, "mlp_mnist", LOW_RANK, _srg().name)
    judged = [claim for claim in low_rank.claims([low]) if claim.claim.startswith("mlp_mnist")]
    assert len(judged) == 3 and all(claim.holds for claim in judged)
    assert set(low_rank.draw([low])) == {"low_rank", "low_rank_networks"}
    lines = {"collapsed solution": "collapse", "SRG": "SRG"}
    drawn_for("column", lambda: {"networks": networks_figure(networks([low]), low_rank.NAMES, lines)})
    at = _network(tmp_path / "collapsed", "mlp_mnist", LOW_RANK, "collapsed solution", dnc1=0.1)
    judged = [claim for claim in low_rank.claims([at]) if claim.claim.startswith("mlp_mnist")]
    assert [claim.holds for claim in judged] == [False] * 3


@pytest.mark.parametrize("missed", [{"accuracy": 0.8}, {"epochs": 1}])
def test_networks_that_do_not_fit_or_have_just_begun_decide_nothing(missed, tmp_path):
    high = 2 * named(references(LOW_RANK), "collapsed").value
    result = _network(tmp_path, "mlp_mnist", LOW_RANK, "collapsed solution", loss=high, **missed)
    assert one(low_rank.claims([result]), "mlp_mnist: loss below").holds is None


def test_the_rank_of_the_logits_decides_over_linear_heads(tmp_path):
    low = _network(tmp_path, "mlp_mnist_linear", LINEAR, "johnson 5")
    judged = [claim for claim in deep_ce.claims([low]) if claim.claim.startswith("mlp_mnist")]
    assert len(judged) == 3 and all(claim.holds for claim in judged)
    assert "deep_ce_networks" in deep_ce.draw([low])
    at = _network(tmp_path / "at", "mlp_mnist_linear", LINEAR, "collapsed solution")
    assert not any(claim.holds for claim in deep_ce.claims([at]) if claim.claim.startswith("mlp_mnist"))
    soon = _network(tmp_path / "soon", "mlp_mnist_linear", LINEAR, "collapsed solution", epochs=2000)
    assert one(deep_ce.claims([soon]), "4 singular values").holds is None


def test_under_the_standard_decay_a_simplex_fails(tmp_path):
    for name, holds in (("pairs", True), ("collapsed solution", False)):
        result = _network(tmp_path / name, "mlp_mnist_standard", LINEAR, name)
        assert one(deep_ce.claims([result]), "no simplex").holds is holds


def _long_tail(folder, kind, name, decays=(5e-3, 1e-3), **more):
    problem = Problem("cross_entropy", "linear", (40, 20, 10, 2), 1, *decays, constraint="nonnegative")
    return _network(folder, kind, problem, name, extra={"cos_inter_max": [1e-3]}.items(), width=16, **more)


def test_networks_on_long_tails_are_judged_by_the_closed_form(tmp_path):
    best = _long_tail(tmp_path, "mlp_mnist", "global optimum")
    judged = verdicts(imbalanced_ce.claims([best]))
    assert len(judged) == 4 and set(judged.values()) == {True}
    gone = _long_tail(tmp_path, "mlp_mnist_strong", "global optimum with minority collapse of 1 class", (3e-2, 1.4e-2))
    assert one(imbalanced_ce.claims([gone]), "1 classes below 2.9 samples").holds
    trained = networks([best, gone])
    drawn_for("column", lambda: {"networks": drawn_of(trained, geometry, imbalanced_ce._expected)})
    dead = _long_tail(tmp_path / "dead", "mlp_mnist", "dead classes: the one of 2 samples", dnc1=1.0)
    judged = verdicts(imbalanced_ce.claims([dead]))
    assert judged.pop("mlp_mnist: largest mean cosine of features of two classes")
    assert set(judged.values()) == {False}
    fitted = _long_tail(tmp_path / "fitted", "mlp_mnist_strong", None, (3e-2, 1.4e-2))
    assert not one(imbalanced_ce.claims([fitted]), "margins are zero").holds


def test_tables_tell_networks_from_the_model(tmp_path):
    low = _network(tmp_path, "mlp_mnist", LOW_RANK, _srg().name)
    model = result_at(tmp_path, "main", LOW_RANK, _srg().name, [12] * 4)
    found = tables_of("low_rank", [model, low])
    assert [len(table) for table in found.values()] == [2, 1]
    row = found["low_rank_networks"].iloc[0]
    assert row.kind == "mlp_mnist" and row.loss == pytest.approx(_srg().value)
    assert row.ranks.split()[-1] == "10"
    assert isinstance(found["low_rank"], pd.DataFrame) and list(networks([model, low])) == ["mlp_mnist"]


def test_smaller_versions_take_one_seed_of_the_kinds_named():
    found = smaller(low_rank.TRAINED, {"mlp_mnist": ("backbone.epochs=1",)})
    assert [point.name for point in found] == ["network_mlp_mnist-seed_0"]
    assert "backbone.epochs=1" in found[0].shrunk and found[0].overrides == low_rank.TRAINED[0].overrides


def _regression(folder, kind, decays, *, epochs=4000, spoilt=0.0, fit=0.99):
    """A network fitted to three numbers, at the optimum of the model, its weight spoilt by this much."""
    targets = teacher(60, 3, 0)
    problem = Problem("mse", "linear", None, 1, *decays, bias=True, targets=targets)
    made = _network(folder, kind, problem, "global optimum", epochs=epochs, width=6)
    tensors = dict(made.tensors) | {"targets": targets}
    noise = torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tensors["weights/1"] = tensors["weights/1"] + spoilt * noise
    write_tensors(made.folder, tensors, max_mb=10)
    said = read_summary(made.folder)
    features, weight = tensors["features/1"], tensors["weights/1"]
    at = regression_collapse(features, weight, targets)
    said["regression"] = {"explained_variance": [[0.5, 0.3, 0.2, 0.0, 0.0]]}
    said["problem"] |= {"num_samples": 60}
    write_summary(made.folder, said)
    values = {"nrc1": at.nrc1, "nrc2": at.nrc2, "nrc3": at.nrc3}
    values = {name: max(float(value), 1e-12) for name, value in values.items()}
    values |= {"r_squared": fit, "test_r_squared": fit}
    rows = [row for name, value in values.items() for row in descent_rows(name, [1.0, 0.5, value], seeds=1)]
    pd.DataFrame(rows, columns=Row._fields).to_csv(made.folder / "record.csv", index=False)
    return Result(made.point, made.config, made.folder)


def test_regressing_networks_are_judged_by_nrc_and_the_optimum_of_the_model(tmp_path):
    best = _regression(tmp_path, "mlp_mnist_ufm", (2e-2, 1e-3))
    judged = verdicts(regression.claims([best]))
    assert len(judged) == 5 and set(judged.values()) == {True}
    spoilt = _regression(tmp_path / "spoilt", "mlp_mnist_ufm", (2e-2, 1e-3), spoilt=0.5)
    assert not one(regression.claims([spoilt]), "NRC2").holds and not one(regression.claims([spoilt]), "NRC3").holds
    assert (
        one(regression.claims([_regression(tmp_path / "badly", "mlp_mnist_ufm", (2e-2, 1e-3), fit=0.5)]), "NRC1").holds
        is None
    )
    free = _regression(tmp_path, "mlp_mnist_none", (2e-2, 1e-3))
    assert not one(regression.claims([free]), "without decay").holds
    trained = networks([best, free])
    drawn_for("column", lambda: {"networks": regression_figure(trained)})
    tables = regression.tables([best, free])
    assert list(tables) == ["regression_networks"] and len(tables["regression_networks"]) == 2
