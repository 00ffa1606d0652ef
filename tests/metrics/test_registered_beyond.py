"""What holds for registered metrics that need more than the rows of a layer: groups, foreign rows, another place."""

import pickle

import pytest
import torch
from test_registered import BEYOND, HIDDEN, MOTIONS, NAMES, WIDTH, K, Problem, assert_same, at_once, draw
from torch import Tensor

from pipeline.metrics import CollapseMetrics, layer_metrics, metrics, registry
from pipeline.metrics.engine.pairing import PairStatistics

OF_NETWORKS = set(registry.OF_NETWORKS)
OWN = [name for name, metric in metrics().items() if set(metric.takes) & BEYOND - OF_NETWORKS]
GROUPS, FOREIGN_ROWS, OFFSET = 2, 11, 1e6


def beyond(problem: Problem) -> dict[str, Tensor]:
    """Groups of the rows, foreign rows, rows of the place before, gradients."""
    generator = torch.Generator().manual_seed(3)
    members = problem.features.shape[:-2]
    normal = lambda *shape: torch.randn(*members, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    root = normal(HIDDEN, HIDDEN)
    return {
        "groups": torch.arange(len(problem.labels)) % 3 // 2,
        "foreign": normal(FOREIGN_ROWS, WIDTH) + 1,
        "previous": normal(len(problem.labels), WIDTH - 2) + problem.features[..., 2:],
        "gradients": root @ root.mT,
    }


def all_at_once(problem: Problem, more: dict[str, Tensor]) -> dict[str, Tensor]:
    return layer_metrics(
        problem.features,
        problem.labels,
        K,
        problem.hidden,
        decisions=problem.decisions,
        nearest=True,
        families=("all",),
        **more,
    )


def streamed(problem: Problem, more: dict[str, Tensor], shards: list[list[slice]]) -> dict[str, Tensor]:
    """All metrics of a stream on several ranks, each of which has its batches, or none."""
    asked = {"metrics": [*NAMES, *OWN], "groups": GROUPS}
    whole, parts = CollapseMetrics(K, WIDTH, **asked), []
    for shard in shards:
        own = CollapseMetrics(K, WIDTH, **asked)
        for rows in shard:
            own.update(problem.features[rows], problem.labels[rows], groups=more["groups"][rows])
            parts.append(PairStatistics.of_rows(more["previous"][rows], problem.features[rows], []))
        whole.merge_state(pickle.loads(pickle.dumps(own)))
    for rows in (rows for shard in shards for rows in shard):
        batch = (problem.features[rows], problem.labels[rows], problem.decisions[rows])
        whole.look_again(*batch, groups=more["groups"][rows])
    for rows in more["foreign"].split(4):
        whole.look_at_foreign(rows)
    return whole.compute(problem.hidden, pair=PairStatistics.merged(parts), gradients=more["gradients"])


def cut(sizes: list[int]) -> list[slice]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def check(values: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    compared = {name for name in expected if registry.base_name(name) in OWN or "/group=" in name}
    compared -= {"cka_batch"}  # depends on the batches
    assert compared and {name for name in compared if "/" not in name} == set(OWN) - {"cka_batch"}
    for name in compared & values.keys():
        assert_same(values[name], expected[name], name=name)
    of_core = {name for name in compared - values.keys() if "/group=" in name}
    assert compared <= values.keys() | of_core  # of groups a stream has what comes from one pass


@pytest.mark.parametrize("sizes", [[30], [1] * 30, [5] * 6, [0, 17, 13]])
def test_any_batches_give_what_all_samples_at_once_give(sizes: list[int]) -> None:
    problem = draw()
    more = beyond(problem)
    check(streamed(problem, more, [cut(sizes)]), all_at_once(problem, more))


def test_three_ranks_one_of_them_empty_give_what_one_gives() -> None:
    problem = draw()
    more = beyond(problem)
    shards = [[slice(0, 9), slice(9, 12)], [], [slice(12, 30)]]
    check(streamed(problem, more, shards), all_at_once(problem, more))


def test_the_order_of_samples_does_not_matter() -> None:
    problem = draw()
    more = beyond(problem)
    order = torch.randperm(len(problem.labels), generator=torch.Generator().manual_seed(2))
    rows = {field: getattr(problem, field)[order] for field in ("features", "labels", "decisions")}
    shuffled = more | {name: more[name][order] for name in ("groups", "previous")}
    found = all_at_once(Problem(**vars(problem) | rows), shuffled)
    for name, value in all_at_once(problem, more).items():
        assert_same(found[name], value, name=name)


def test_members_are_measured_as_one_by_one() -> None:
    together = draw(members=(2,))
    more = beyond(together)
    found = all_at_once(together, more)
    for member in range(2):
        own = {name: value if name == "labels" else value[member] for name, value in vars(together).items()}
        alone = {name: value if name == "groups" else value[member] for name, value in more.items()}
        for name, value in all_at_once(Problem(**own), alone).items():
            assert_same(found[name][member], value, name=name)


@pytest.mark.parametrize("motion", registry.INVARIANCES)
def test_the_promised_invariances_hold(motion: str) -> None:
    problem = draw()
    more = beyond(problem)
    moved = MOTIONS[motion](problem)
    # Whatever moves the rows moves the foreign ones.
    as_rows = Problem(**vars(problem) | {"features": more["foreign"]})
    found = all_at_once(moved, more | {"foreign": MOTIONS[motion](as_rows).features})
    expected = all_at_once(problem, more)
    promised = [name for name in OWN if motion in metrics()[name].invariant]
    assert promised
    for name in promised:
        assert_same(found[name], expected[name], name=name)


def test_rows_far_away_leave_what_no_translation_changes() -> None:
    """The invariant of the specification, of all registered metrics: rows + 1e6, to 1e-9."""
    problem = draw()
    more, far = beyond(problem), Problem(**vars(problem) | {"features": problem.features + OFFSET})
    both = [all_at_once(it, more) | at_once(it) for it in (problem, far)]
    unmoved = [name for name in (*NAMES, *OWN) if "translation" in metrics()[name].invariant]
    moved = [name for name in ("cos_intra_min", "dnc2", "nc5", "subspace_cosine") if name in both[0]]
    for name in unmoved:
        assert_same(both[1][name], both[0][name], rtol=1e-9, name=name)
    for name in moved:
        assert abs(float(both[1][name]) / float(both[0][name]) - 1) > 1e-3, name


def test_batches_of_groups_must_tell_them() -> None:
    problem = draw()
    metric = CollapseMetrics(K, WIDTH, families=("core", "groups"), groups=("a", "b"))
    with pytest.raises(ValueError, match=r"groups must be given with every batch: there are a, b, got None\."):
        metric.update(problem.features, problem.labels)
    with pytest.raises(ValueError, match=r"groups must be below 2, got 2\."):
        metric.update(problem.features, problem.labels, groups=torch.full_like(problem.labels, 2))
    metric.update(problem.features, problem.labels, groups=problem.labels % 2)
    assert {"dnc1/group=a", "dnc1/group=b", "group_gap"} <= metric.compute().keys()


def test_foreign_rows_are_forgotten_with_the_second_look() -> None:
    problem = draw()
    more = beyond(problem)
    metric = CollapseMetrics(K, WIDTH, metrics=["nc5", "neco_auroc"])
    for _ in range(2):  # the second time for all rows: as if the first had not been
        metric.update(problem.features, problem.labels)
        assert "nc5" not in metric.compute()
        metric.look_again(problem.features, problem.labels)
        metric.look_at_foreign(more["foreign"])
        values = metric.compute()
        assert values.keys() == {"nc5", "neco_auroc"}
        metric.reset()
    expected = layer_metrics(problem.features, problem.labels, K, foreign=more["foreign"], families=("foreign",))
    for name, value in values.items():
        assert_same(value, expected[name], name=name)
