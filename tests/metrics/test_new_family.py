"""A new metric is one new file: it appears by itself in rows of backbone and head, streams, tracker and tables."""

import json

import numpy as np
import pandas as pd
import pytest
from overlay import Overlay

OF_MEANS = '''
"""Angles between class means."""

from torch import Tensor

from pipeline.metrics.engine.cases import MEANS_EXIST, ZERO_MEANS
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.registry import metric


@metric(*MEANS_EXIST, ZERO_MEANS, title="Largest cosine of class means", target=0.0, scale="linear")
def largest_cosine(statistics: ClassStatistics) -> Tensor:
    """Largest cosine between two class means."""
    directions = statistics.means / statistics.mean_norms[..., None]
    first, second = statistics.pairs
    return (directions @ directions.mT)[..., first, second].amax(-1)
'''

OF_ANOTHER_STATISTIC = '''
"""How heavy the tails of classes are, and how long their longest feature."""

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import MEANS_EXIST
from pipeline.metrics.engine.chunks import Chunk
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.registry import metric, statistic


def merged(values, shifts, counts):
    total = torch.zeros_like(values[0])
    for (second, third, fourth), by, n in zip((v.unbind(-3) for v in values), shifts, counts, strict=True):
        fourth = fourth + 4 * by * third + 6 * by**2 * second + n * by**4
        total += torch.stack([second + n * by**2, third + 3 * by * second + n * by**3, fourth], -3)
    return total


@statistic(shape=lambda num_classes, num_features: (3, num_classes, num_features), merge=merged)
def moments(chunk: Chunk) -> Tensor:
    return torch.stack([chunk.class_sums(chunk.centred**power) for power in (2, 3, 4)], -3)


@statistic(shape=lambda num_classes, num_features: (num_classes,), merge="max")
def longest(chunk: Chunk) -> Tensor:
    return chunk.class_maxima(torch.linalg.vector_norm(chunk.features.double(), dim=-1))


@metric(*MEANS_EXIST, title="Kurtosis within classes")
def kurtosis(statistics: ClassStatistics, moments: Tensor) -> Tensor:
    """Fourth moment about the class mean over the squared second, both summed over classes and features."""
    second, _, fourth = moments.sum((-2, -1)).unbind(-1)
    return fourth / second**2


@metric(*MEANS_EXIST, title="Longest feature")
def longest_feature(statistics: ClassStatistics, longest: Tensor) -> Tensor:
    """Norm of the longest feature."""
    return longest.amax(-1)
'''

OF_A_WEIGHT = '''
"""Rows of weights."""

import torch
from torch import Tensor

from pipeline.metrics.engine.cases import WEIGHT_EXISTS
from pipeline.metrics.registry import metric


@metric(*WEIGHT_EXISTS, title="Longest over mean row of $W_l$", target=1.0)
def row_ratio(weight: Tensor) -> Tensor:
    """Norm of the longest row of the weight over the mean norm."""
    norms = torch.linalg.vector_norm(weight, dim=-1)
    return norms.amax(-1) / norms.mean(-1)
'''

OF_A_SECOND_LOOK = '''
"""Outliers."""

from torch import Tensor

from pipeline.metrics.engine.cases import MEANS_EXIST
from pipeline.metrics.engine.rows import Rows
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.registry import metric, row_sum


@row_sum()
def far(rows: Rows) -> Tensor:
    return (rows.centred.square().sum(-1) > 2 * rows.own.within_trace[..., None]).sum(-1)


@metric(*MEANS_EXIST, title="Share of outliers", scale="linear")
def outliers(statistics: ClassStatistics, far: Tensor, judged: int) -> Tensor:
    """Share of samples whose squared distance from their class mean is more than twice its mean."""
    return far.double() / judged
'''

FAMILIES = {"angles": OF_MEANS, "outlying": OF_A_SECOND_LOOK, "rows": OF_A_WEIGHT, "tails": OF_ANOTHER_STATISTIC}
NEW = ["largest_cosine", "outliers", "row_ratio", "kurtosis", "longest_feature"]
OF_ONE_PASS = ["largest_cosine", "kurtosis", "longest_feature"]

USES = """
import json, pathlib, torch
from torch import nn
import pipeline
from pipeline.metrics import CollapseMetrics, layer_metrics, metrics, registry

assert str(pathlib.Path(pipeline.__file__)).startswith({folder!r})
new = {new!r}
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)).double()
inputs, labels = torch.randn(60, 7, dtype=torch.float64), torch.arange(60) % 3
inputs += 2 * torch.eye(7, dtype=torch.float64)[labels]
loader = list(zip(inputs.split(7), labels.split(7)))
tracker = pipeline.CollapseTracker(model, 3, ["1", "2:pre"])
tracker.measure(loader, test=loader)
asked = pipeline.CollapseTracker(model, 3, ["1", "2:pre"], metrics=new)
asked.measure(loader, test=loader)
rows = torch.relu(model[0](inputs)).detach()
stream = CollapseMetrics(3, 5)
for part, own in zip(rows.split(7), labels.split(7)):
    stream.update(part, own)
numbers = lambda found: {{name: float(value) for name, value in found.items()}}
print(json.dumps({{
    "metrics": list(metrics()),
    "default": tracker.latest,
    "asked": asked.latest,
    "stream": numbers(stream.compute()),
    "once": numbers(layer_metrics(rows, labels, 3, model[2].weight)),
    "table": registry.table(),
    "rows": rows.tolist(),
}}))
"""


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Overlay:
    """A copy of the package and its configuration with new files of metrics, and nothing else changed."""
    files = {f"pipeline/metrics/{family}.py": text.lstrip() for family, text in FAMILIES.items()}
    return Overlay(tmp_path_factory.mktemp("overlay"), files)


@pytest.fixture(scope="module")
def record(overlay: Overlay) -> pd.DataFrame:
    settings = ["backbone.epochs=1", "descent.steps=4", "data.samples_per_class=20", "trainer.threads=1"]
    overlay.dnc("-q", *settings, "logger=none", "record.figures=false", "hydra.run.dir=run")
    return pd.read_csv(overlay.folder / "run" / "record.csv", keep_default_na=False, na_values={"value": ["nan"]})


@pytest.fixture(scope="module")
def used(overlay: Overlay) -> dict:
    return json.loads(overlay.python("-c", USES.format(folder=str(overlay.folder), new=NEW)).stdout)


def test_new_metrics_stand_beside_the_old_ones_in_every_row_of_a_run(record: pd.DataFrame) -> None:
    for stage in ("backbone", "head"):
        of_stage = record[(record.stage == stage) & (record.layer != "")]
        where = {
            name: set(map(tuple, rows[["step", "seed", "layer", "tap"]].values))
            for name, rows in of_stage.groupby("metric")
        }
        for name in ("largest_cosine", "outliers", "kurtosis", "longest_feature"):
            assert where[name] == where[f"test_{name}"] == where["dnc1"], (stage, name)
    assert where["row_ratio"] == where["rank_weight"] and "test_row_ratio" not in where
    assert record[record.metric.str.removeprefix("test_").isin(NEW)].value.notna().all()


def test_new_metrics_are_tracked_and_streamed(used: dict) -> None:
    assert set(NEW) <= set(used["metrics"]) and set(NEW) <= used["once"].keys()
    assert set(OF_ONE_PASS) <= used["stream"].keys()
    for place in ("1/post", "2/pre"):
        for name in OF_ONE_PASS:
            assert used["default"][f"{place}/{name}"] == used["default"][f"{place}/test_{name}"]
            assert used["default"][f"{place}/{name}"] == pytest.approx(used["once"][name], rel=1e-10)
        assert used["asked"][f"{place}/outliers"] == used["asked"][f"{place}/test_outliers"] == used["once"]["outliers"]
    for found in ("default", "asked"):
        assert used[found]["2/pre/row_ratio"] == pytest.approx(used["once"]["row_ratio"])
        assert "1/post/row_ratio" not in used[found] and "2/pre/test_row_ratio" not in used[found]
    assert "2/pre/dnc1" in used["default"] and "2/pre/dnc1" not in used["asked"]
    assert all(f"| `{name}` |" in used["table"] for name in NEW)


def test_new_metrics_say_what_their_formulas_say(used: dict) -> None:
    rows, labels = np.array(used["rows"]), np.arange(60) % 3
    means = np.stack([rows[labels == label].mean(0) for label in range(3)])
    centred = rows - means[labels]
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    expected = {
        "largest_cosine": max((units @ units.T)[i, j] for i, j in ((0, 1), (0, 2), (1, 2))),
        "kurtosis": (centred**4).sum() / (centred**2).sum() ** 2,
        "longest_feature": np.linalg.norm(rows, axis=1).max(),
        "outliers": np.mean((centred**2).sum(1) > 2 * (centred**2).sum(1).mean()),
    }
    for found in ("once", "stream"):
        for name, value in expected.items():
            if name in used[found]:
                assert used[found][name] == pytest.approx(value, rel=1e-9), (found, name)
