"""What holds for every registered metric, whoever adds it: a family's own tests hold its golden values only.

Each property is a function of a measure, `(Problem) -> {name: value}`, and each is seen to fail where a measure breaks
it.
"""

import inspect
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from pipeline.metrics import ClassStatistics, CollapseMetrics, layer_metrics, metrics, registry, undefined_reasons

BEYOND = {*registry.BEYOND_A_LAYER, *(f"{registry.FOREIGN}{name}" for name in registry.row_values())}
NAMES = [name for name, metric in metrics().items() if not set(metric.takes) & BEYOND]
K, WIDTH, HIDDEN = 3, 6, 5


@dataclass(frozen=True)
class Problem:
    """Rows with labels and decisions, weights that they enter: one of a hidden layer with the next one, and a last."""

    features: Tensor
    labels: Tensor
    decisions: Tensor
    hidden: Tensor
    following: Tensor
    last: Tensor

    @property
    def uses(self) -> list[dict[str, Tensor | None]]:
        return [{"weight": self.hidden, "next_weight": self.following}, {"weight": self.last, "next_weight": None}]


Measure = Callable[[Problem], dict[str, Tensor]]


def draw(sizes: tuple[int, ...] = (9, 14, 7), members: tuple[int, ...] = (), seed: int = 0) -> Problem:
    """Gaussian classes of unequal sizes about random means, shuffled, some entries zero; float64."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    features = (2 * normal(*members, K, WIDTH) + 1)[..., labels, :] + normal(*members, len(labels), WIDTH)
    features[..., 0].relu_()
    decisions = torch.randint(0, K, (*members, len(labels)), generator=generator)
    weights = normal(*members, HIDDEN, WIDTH), normal(*members, K, HIDDEN), normal(*members, K, WIDTH)
    return Problem(features, labels, decisions, *weights)


def at_once(problem: Problem) -> dict[str, Tensor]:
    """All metrics, measured once for each problem: many tests look at the same one."""
    return _measured_once(_Same(problem))


class _Same:
    """A problem as a key: the same tensors."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._key = tuple(
            (
                t.dtype,
                t.shape,
                t.numpy(force=True).tobytes() if t.dtype != torch.bfloat16 else t.float().numpy().tobytes(),
            )
            for t in vars(problem).values()
        )

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._key == other._key


@lru_cache
def _measured_once(same: _Same) -> dict[str, Tensor]:
    problem = same.problem
    found: dict[str, Tensor] = {}
    for weights in problem.uses:
        found |= layer_metrics(
            problem.features, problem.labels, K, decisions=problem.decisions, nearest=True, families=("all",), **weights
        )
    return found


def reasons_at_once(problem: Problem) -> dict[str, str]:
    found: dict[str, str] = {}
    for weights in problem.uses:
        found |= undefined_reasons(
            problem.features, problem.labels, K, decisions=problem.decisions, nearest=True, families=("all",), **weights
        )
    return found


def streamed(problem: Problem, sizes: list[int], covariance: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All metrics of a stream of batches, and reasons."""
    metric = CollapseMetrics(K, problem.features.shape[1], covariance, metrics=NAMES)
    batches = list(zip(*(t.split(sizes) for t in (problem.features, problem.labels, problem.decisions)), strict=True))
    for features, labels, _ in batches:
        metric.update(features, labels)
    for batch in batches:
        metric.look_again(*batch)
    values, reasons = {}, {}
    for weights in problem.uses:
        values |= metric.compute(**weights)
        reasons |= metric.undefined
    return values, reasons


def assert_same(actual: Tensor, expected: Tensor, rtol: float = 1e-10, name: str = "") -> None:
    assert actual.dtype == expected.dtype == torch.float64
    # Distances of unit matrices end at the rounding of 1.
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=1e-13, equal_nan=True, msg=lambda text: name + text)


def rotated(problem: Problem) -> Problem:
    turn = torch.linalg.qr(draw(seed=1).features[:WIDTH]).Q
    return replace(problem, features=problem.features @ turn, hidden=problem.hidden @ turn, last=problem.last @ turn)


MOTIONS: dict[str, Callable[[Problem], Problem]] = {
    "rotation": rotated,
    "scaling": lambda problem: replace(problem, features=300 * problem.features),
    "translation": lambda problem: replace(problem, features=problem.features + torch.arange(1.0, WIDTH + 1)),
}


def check_motion(measure: Measure, name: str, motion: str) -> None:
    problem = draw()
    assert_same(measure(MOTIONS[motion](problem))[name], measure(problem)[name], name=name)


def check_order(measure: Measure, name: str) -> None:
    problem = draw()
    order = torch.randperm(len(problem.labels), generator=torch.Generator().manual_seed(2))
    rows = {field: getattr(problem, field)[order] for field in ("features", "labels", "decisions")}
    assert_same(measure(replace(problem, **rows))[name], measure(problem)[name], name=name)


def check_members(measure: Measure, name: str) -> None:
    together = draw(members=(2, 3))
    for i in range(2):
        for j in range(3):
            alone = {f: getattr(together, f)[i, j] for f in Problem.__dataclass_fields__ if f != "labels"}
            expected = measure(replace(together, **alone))[name]
            assert measure(together)[name].shape == (2, 3)
            assert_same(measure(together)[name][i, j], expected, name=name)


def check_precision(measure: Measure, name: str, dtype: torch.dtype) -> None:
    low = draw()
    low = replace(low, **{f: getattr(low, f).to(dtype) for f in ("features", "hidden", "following", "last")})
    high = replace(low, **{f: getattr(low, f).double() for f in ("features", "hidden", "following", "last")})
    assert_same(measure(low)[name], measure(high)[name], rtol=1e-14, name=name)


def test_every_metric_has_a_finite_value_where_all_is_given() -> None:
    values = at_once(draw())
    assert values.keys() == set(NAMES)
    assert all(value.shape == () and value.isfinite() for value in values.values())
    assert reasons_at_once(draw()) == {}


def test_every_metric_is_described() -> None:
    for name, metric in metrics().items():
        assert metric.name == name and metric.title and metric.summary.endswith("."), name
        assert metric.target is None or math.isfinite(metric.target), name
        assert inspect.signature(metric.formula).return_annotation in ("Tensor", Tensor), name
        assert f"| `{name}` |" in registry.table()


@pytest.mark.parametrize("name", NAMES)
def test_the_promised_invariances_hold(name: str) -> None:
    for motion in metrics()[name].invariant:
        check_motion(at_once, name, motion)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_samples_does_not_matter(name: str) -> None:
    check_order(at_once, name)


@pytest.mark.parametrize("name", NAMES)
def test_members_are_measured_as_one_by_one(name: str) -> None:
    check_members(at_once, name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_measured_in_float64(dtype: torch.dtype) -> None:
    for name in NAMES:
        check_precision(at_once, name, dtype)


@pytest.mark.parametrize("covariance", [True, False])
@pytest.mark.parametrize("sizes", [[30], [1] * 30, [1, 0, 17, 12]])
def test_any_batches_give_what_all_samples_at_once_give(sizes: list[int], covariance: bool) -> None:
    expected = at_once(draw())
    values, reasons = streamed(draw(), sizes, covariance)
    assert values.keys() == expected.keys() and reasons == {}
    for name, value in values.items():
        assert_same(value, expected[name], name=name)


def test_chunks_give_what_one_chunk_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = at_once(draw())
    monkeypatch.setattr("pipeline.metrics.engine.chunks.CHUNK_ELEMENTS_CPU", 7 * WIDTH)
    for values in (_measured_once.__wrapped__(_Same(draw())), streamed(draw(), [30], covariance=False)[0]):
        for name, value in values.items():
            assert_same(value, expected[name], name=name)


def test_shards_that_lack_classes_or_samples_merge_to_the_whole() -> None:
    problem = draw()
    labels, order = problem.labels.sort()
    features, expected = problem.features[order], at_once(problem)
    whole = CollapseMetrics(K, WIDTH, metrics=NAMES)
    for start, end in [(0, 5), (5, 5), (5, 20), (20, 30)]:
        shard = CollapseMetrics(K, WIDTH, metrics=NAMES)
        shard.update(features[start:end], labels[start:end])
        whole.merge_state(pickle.loads(pickle.dumps(shard)))
    whole.look_again(features, labels, problem.decisions[order])
    values = {name: value for weights in problem.uses for name, value in whole.compute(**weights).items()}
    for name, value in values.items():
        assert_same(value, expected[name], name=name)


def degenerate() -> dict[str, Problem]:
    """Inputs on which metrics have no value, each for a reason of its own."""
    whole, zero = draw(), torch.zeros(6, WIDTH, dtype=torch.float64)
    few = {"labels": torch.arange(6) % K, "decisions": torch.arange(6) % K}
    bad, nan = whole.features.clone(), torch.full_like(whole.hidden, math.nan)
    bad[4, 1] = math.inf
    blank = {field: torch.zeros_like(getattr(whole, field)) for field in ("hidden", "following", "last")}
    return {
        "no samples": replace(whole, features=zero[:0], **{field: value[:0] for field, value in few.items()}),
        "one sample": replace(whole, features=whole.features[:1], **{field: value[:1] for field, value in few.items()}),
        "one class": replace(whole, labels=torch.ones_like(whole.labels)),
        "an empty class": replace(whole, labels=whole.labels.clamp(max=K - 2)),
        "one sample a class": replace(
            whole, features=whole.features[:3], labels=torch.arange(3), decisions=few["labels"][:3]
        ),
        "all features zero": replace(whole, features=zero, **few),
        "all features equal": replace(whole, features=zero + 0.1, **few),
        "two means equal": replace(whole, features=whole.features[:3].repeat(2, 1)[[0, 1, 1, 0, 1, 1]], **few),
        "an infinite feature": replace(whole, features=bad),
        "weights zero": replace(whole, **blank),
        "weights not finite": replace(whole, hidden=nan, following=nan[:K, :HIDDEN], last=nan[:K]),
        "collapsed": replace(whole, features=whole.features[:3][whole.labels]),
    }


@pytest.mark.parametrize("case", degenerate())
def test_what_is_undefined_has_a_reason_and_what_is_defined_has_none(case: str) -> None:
    problem = degenerate()[case]
    values, reasons = at_once(problem), reasons_at_once(problem)
    assert {name for name, value in values.items() if not value.isfinite()} == reasons.keys()
    assert all(reasons.values())
    of_stream, told = streamed(problem, [len(problem.labels)])
    assert of_stream.keys() == values.keys() and told.keys() == {n for n, v in of_stream.items() if not v.isfinite()}
    if len(problem.labels):  # without rows there is no second look
        for name, value in of_stream.items():
            assert_same(value, values[name], name=name)
        assert told == reasons


def test_every_degenerate_input_leaves_some_metric_undefined_or_at_its_target() -> None:
    for case, problem in degenerate().items():
        values = at_once(problem)
        targets = {name: metrics()[name].target for name in NAMES}
        assert any(not value.isfinite() or value == targets[name] for name, value in values.items()), case


def test_rows_that_were_not_shown_twice_are_told() -> None:
    problem = draw()
    metric = CollapseMetrics(K, WIDTH, covariance=False, metrics=NAMES)
    metric.update(problem.features, problem.labels)
    waiting = {name for name in NAMES if set(metrics()[name].takes) & set(registry.row_sums())}
    values = metric.compute()
    assert {name for name, value in values.items() if value.isnan()} == waiting == metric.undefined.keys()
    metric.look_again(problem.features, problem.labels, problem.decisions)
    assert all(value.isfinite() for value in metric.compute().values())
    metric.update(problem.features, problem.labels)  # what was judged about other means is forgotten
    assert metric.compute().keys() & waiting == waiting and metric.undefined.keys() == waiting


# --- each property can fail ------------------------------------------------------------------------------------------


def spoilt(change: Callable[[Problem], Tensor]) -> Measure:
    return lambda problem: {name: value + change(problem) for name, value in at_once(problem).items()}


FAULTS: dict[str, tuple[Callable[..., None], tuple, Measure]] = {
    "rotation": (check_motion, ("rotation",), spoilt(lambda p: p.features[..., 0].mean(-1))),
    "scaling": (check_motion, ("scaling",), spoilt(lambda p: p.features.mean((-2, -1)))),
    "translation": (check_motion, ("translation",), spoilt(lambda p: p.features.mean((-2, -1)))),
    "order": (check_order, (), spoilt(lambda p: p.features[..., 0, 1])),
    "members": (check_members, (), spoilt(lambda p: p.features.mean())),
    "precision": (check_precision, (torch.float32,), spoilt(lambda p: p.features.std().double())),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES[:1])
def test_a_measure_that_breaks_a_property_is_found(fault: str, name: str) -> None:
    check, arguments, measure = FAULTS[fault]
    check(at_once, name, *arguments)
    with pytest.raises(AssertionError):
        check(measure, name, *arguments)


def test_a_metric_that_lacks_an_invariance_is_found() -> None:
    for motion in registry.INVARIANCES:
        lacking = [n for n in NAMES if metrics()[n].of_rows and motion not in metrics()[n].invariant]
        found = [name for name in lacking if _changes(name, motion)]
        assert found or not lacking, motion


def _changes(name: str, motion: str) -> bool:
    try:
        check_motion(at_once, name, motion)
    except AssertionError:
        return True
    return False


def test_a_statistic_of_members_is_that_of_each() -> None:
    together = draw(members=(2,))
    extras = tuple(registry.statistics().values())
    found = ClassStatistics.from_features(together.features, together.labels, K, extras=extras)
    for member in range(2):
        alone = ClassStatistics.from_features(together.features[member], together.labels, K, extras=extras)
        for name, value in alone.extras.items():
            assert value.shape == registry.statistics()[name].shape(K, WIDTH)
            assert_same(found.extras[name][member], value, name=name)
