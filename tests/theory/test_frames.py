"""Frames of cross-entropy: the specification's table, which frame is best at which depth, what is refused."""

import doctest
import math

import pytest
import scipy.optimize
import torch
from theory_goldens import all_printed, printed

from pipeline.theory import BOUND, Problem, diagnose, frame_reference, lowest, named, references
from pipeline.theory.providers import frames

SMALL = 2**-10
PAIR = ("simplex", 2)
TABLE = [
    (4, 2, SMALL, [("simplex", 4)], "0.0302275839"),
    (4, 2, SMALL, [PAIR] * 2, "0.0306974264"),
    (5, 2, SMALL, [("simplex", 5)], "0.0403019241"),
    (5, 2, SMALL, [PAIR, ("simplex", 3)], "0.0402904204"),
    (6, 2, SMALL, [("simplex", 6)], "0.0503755026"),
    (6, 2, SMALL, [PAIR, ("simplex", 4)], "0.0496852186"),
    (6, 2, SMALL, [PAIR] * 3, "0.0472543773"),
    (10, 2, SMALL, [("simplex", 10)], "0.0906621832"),
    (10, 2, SMALL, [PAIR, ("simplex", 8)], "0.0884334205"),
    (10, 2, SMALL, [PAIR] * 2 + [("simplex", 6)], "0.0860816013"),
    (10, 2, SMALL, [PAIR] * 3 + [("simplex", 4)], "0.0834598110"),
    (10, 2, SMALL, [PAIR] * 5, "0.0800126592"),
    (10, 2, SMALL, [("johnson", 10)], "0.0814321533"),
    (10, 2, SMALL, [("polygon", 5)] * 2, "0.0833115247"),
    (10, 2, SMALL, [("polygon", 10)], "0.1419594691"),
    (4, 3, SMALL, [("simplex", 4)], "0.0256520237"),
    (4, 3, SMALL, [PAIR] * 2, "0.0236576370"),
    (10, 3, SMALL, [("simplex", 10)], "0.0769484143"),
    (10, 3, SMALL, [PAIR, ("simplex", 8)], "0.0733013988"),
    (10, 3, SMALL, [PAIR] * 2 + [("simplex", 6)], "0.0695479345"),
    (10, 3, SMALL, [PAIR] * 3 + [("simplex", 4)], "0.0655686655"),
    (10, 3, SMALL, [PAIR] * 5, "0.0609208237"),
    (10, 3, SMALL, [("johnson", 10)], "0.0587052238"),
    (10, 3, SMALL, [("polygon", 5)] * 2, "0.0599874238"),
    (10, 3, SMALL, [("polygon", 10)], "0.0780124305"),
    (10, 3, 2**-9, [("simplex", 10)], "0.1470607657"),
    (10, 3, 2**-9, [PAIR] * 5, "0.1165252565"),
    (10, 3, 2**-9, [("johnson", 10)], "0.1120978789"),
    (10, 5, SMALL, [("simplex", 10)], "0.0719698242"),
    (10, 5, SMALL, [PAIR] * 5, "0.0508500885"),
    (10, 5, SMALL, [("johnson", 10)], "0.0462057364"),
    (10, 5, SMALL, [("polygon", 10)], "0.0453250389"),
]


def problem(classes: int, depth: int, decay: float, samples: int = 5, **changes) -> Problem:
    return Problem("cross_entropy", "linear", (samples,) * classes, depth, decay, decay, **changes)


@pytest.mark.parametrize(("classes", "depth", "decay", "groups", "value"), TABLE)
def test_values_of_the_table(classes, depth, decay, groups, value):
    assert frame_reference(problem(classes, depth, decay), groups).value == printed(value)


def test_references_list_what_the_table_has():
    for classes, depth, decay, _, value in TABLE:
        values = [state.value for state in references(problem(classes, depth, decay))]
        assert any(printed(value) == known for known in values)


def test_scales_of_the_table():
    scales = [(4, 2, "7.04305631"), (10, 2, "7.03753849"), (10, 3, "7.53402752")]
    for classes, depth, alpha in scales:
        log_decays = (depth + 1) * math.log(SMALL)
        assert frames._scale(frames.Group("simplex", classes), classes, 5, depth, log_decays).output == printed(alpha)
    assert frames._scale(frames.Group("johnson", 10), 10, 5, 3, 4 * math.log(SMALL)).output == printed("22.14499078")


@pytest.mark.parametrize(
    ("depth", "best"), [(2, "pairs"), (3, "johnson 5"), (5, "polygon of 10")], ids=["pairs", "johnson", "decagon"]
)
def test_the_deeper_the_lower_the_rank_of_the_best_frame(depth, best):
    assert lowest(references(problem(10, depth, SMALL))).name == best


@pytest.mark.parametrize(("classes", "depth"), [(3, 1), (7, 1), (2, 2), (2, 6)])
def test_one_layer_and_two_classes_have_an_optimum(classes, depth):
    state = named(references(problem(classes, depth, SMALL)), "collapsed")
    assert (state.kind, state.name) == ("optimum", "global optimum")
    assert diagnose(problem(classes, depth, SMALL), state.value * 0.99).name == "below the global optimum"
    zero = lowest(references(problem(classes, depth, 0.9)))
    assert zero.kind == "optimum" and zero.is_zero and zero.value == pytest.approx(math.log(classes), rel=1e-15)


def test_only_the_collapsed_solution_and_zero_count_their_classes():
    counted = {state.name: state.fitted for state in references(problem(6, 2, SMALL)) if state.fitted is not None}
    assert counted == {"collapsed solution": 6, "zero solution": 0}


def test_deeper_layers_call_nothing_an_optimum():
    for classes, depth in ((3, 2), (4, 3), (5, 2), (10, 5)):
        assert all(state.kind not in ("optimum", BOUND) for state in references(problem(classes, depth, SMALL)))


def test_the_collapsed_solution_exists_up_to_the_maximum_of_its_stationarity():
    """lambda n^(1/(L+1)) = alpha^((L-1)/(L+1)) / (e^alpha + K - 1), largest .0862609 at alpha 1.2195 for K 10, L 2."""
    for depth, highest in ((2, 0.0862609), (3, 0.0908451)):
        limit = highest / 5 ** (1 / (depth + 1))
        below, above = (references(problem(10, depth, limit * factor)) for factor in (1 - 1e-5, 1 + 1e-5))
        assert "metastable collapsed solution" in [state.name for state in below]
        assert not [state for state in above if "collapsed" in state.name]


@pytest.mark.parametrize(("frame", "classes"), [("simplex", 7), ("polygon", 6), ("polygon", 9), ("johnson", 15)])
def test_the_cost_of_a_group_is_the_minimum_over_its_logits(frame, classes):
    total, depth, decay = classes + 3, 3, 1e-3
    known = frame_reference(problem(total, depth, decay), [(frame, classes), ("zero", 3)])
    projector = frames._projector(frames.Group(frame, classes)).numpy()
    rank = round(projector.trace())

    def cost(gamma: float) -> float:
        row = gamma * projector[0]
        fit = scipy.special.logsumexp([*row, 0, 0, 0]) - row[0]
        penalty = (depth + 1) / 2 * decay * (5 * rank ** (depth + 1) * gamma**2) ** (1 / (depth + 1))
        return classes / total * fit + penalty

    least = scipy.optimize.minimize_scalar(cost, bounds=(2, 200), method="bounded", options={"xatol": 1e-10}).fun
    assert known.value == pytest.approx(least + 3 / total * math.log(total), rel=1e-12)


@pytest.mark.parametrize(("classes", "dim", "name", "dimension"), [
    (4, 5, "collapsed", 18), (4, 5, "pairs", 14), (6, 7, "collapsed", 40), (6, 7, "pairs", 30),
])  # fmt: skip
def test_at_frames_the_hessian_is_semidefinite_and_its_nullity_is_that_of_stiefel_manifolds(
    classes, dim, name, dimension
):
    """L (r d - r(r+1)/2) at rank r = K-1 and K/2, where arXiv 2410.23169 counts points of Grassmannians."""
    one = problem(classes, 2, SMALL, samples=1)
    point = named(references(one), name).construct((dim, dim), torch.Generator().manual_seed(0))
    parts = [point.features, *point.weights]

    def objective(flat: torch.Tensor) -> torch.Tensor:
        pieces = zip(flat.split([part.numel() for part in parts]), parts, strict=True)
        features, first, last = (piece.view(part.shape) for piece, part in pieces)
        fit = torch.nn.functional.cross_entropy(features @ first.T @ last.T, point.labels)
        return fit + SMALL / 2 * flat.square().sum()

    table = torch.autograd.functional.hessian(objective, torch.cat([part.flatten() for part in parts]))
    values = torch.linalg.eigvalsh(table)
    assert values[0] > -1e-12 and int((values < 1e-9).sum()) == dimension


def test_projectors_are_projectors_with_zero_row_sums_and_equal_rows():
    for group in (("simplex", 2), ("simplex", 5), ("polygon", 5), ("polygon", 8), ("johnson", 6), ("johnson", 21)):
        group = frames.Group(*group)
        projector = frames._projector(group)
        assert (projector @ projector - projector).abs().max() < 1e-14 and projector.sum(dim=0).abs().max() < 1e-13
        assert round(projector.trace().item()) == frames._rank(group)
        assert sorted(frames._row(group)) == pytest.approx(sorted(projector[-1].tolist()), abs=1e-14)


def test_what_is_no_state_of_frames_is_refused():
    ten = problem(10, 3, SMALL)
    for groups, said in (
        ([("simplex", 9)], "must add up to the 10"),
        ([("star", 10)], "^frame is 'star', must be one of simplex"),
        ([("simplex", 1), ("simplex", 9)], "simplex of 1"),
        ([("johnson", 9), ("zero", 1)], r"must be r\(r-1\)/2"),
    ):
        with pytest.raises(ValueError, match=said):
            frame_reference(ten, groups)
    with pytest.raises(ValueError, match="too large for the groups"):
        frame_reference(problem(10, 3, 1.0), [("simplex", 10)])
    with pytest.raises(ValueError, match="frames need cross-entropy"):
        frame_reference(Problem("cross_entropy", "relu", (5,) * 4, 2, SMALL, SMALL), [("simplex", 4)])
    with pytest.raises(ValueError, match="depth 0"):
        frame_reference(Problem("cross_entropy", "relu", (5,) * 4, 0, (), SMALL), [PAIR] * 2)


def test_with_a_bias_unlike_groups_are_points_that_move_on():
    state = frame_reference(problem(5, 2, SMALL, bias=True), [PAIR, ("simplex", 3)])
    assert state.kind == "attained" and state.value == printed("0.0402904204")
    names = {state.name for state in references(problem(6, 2, SMALL, bias=True))}
    assert names == {"collapsed solution", "pairs", "2 triangles", "polygon of 6", "zero solution"}


def test_many_classes_stay_quick():
    assert 80 < len(references(problem(40, 3, 1e-5))) < 200 and len(references(problem(100, 3, 1e-6))) < 30


def test_docstring_examples_hold():
    assert doctest.testmod(frames).attempted > 1 and doctest.testmod(frames).failed == 0
    assert all_printed("1.0 2.0") == [1.0, 2.0]
