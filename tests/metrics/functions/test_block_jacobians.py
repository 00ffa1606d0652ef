"""Coupling of blocks: golden numbers, Jacobians by differences, the traps of the definition."""

import pytest
import torch
from deterministic import powers
from torch import nn

from pipeline.metrics import (
    block_jacobian,
    coupling,
    coupling_abs,
    line_shape_score,
    norm_growth_variation,
    residual_alignment,
    stack_alignment,
)

GOLDEN = {  # m_12, m_21 and m_12 with absolute values, for K = 1, 2, 3
    (4, 1, 2): (
        (0.522652299, 0.699401816, 0.766308707),
        (0.442709332, 0.486052699, 0.822879936),
        (0.522652299, 0.699401816, 0.766308707),
    ),
    (5, 1, 3): (
        (0.975226175, 1.313325552, 1.388906234),
        (1.226038152, 1.219337848, 1.305708010),
        (0.975226175, 0.944473866, 1.018869914),
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_couplings(case) -> None:
    size, *starts = case
    first, second = (powers(size, size, start) for start in starts)
    found = [
        [float(measure(*pair, k)) for k in (1, 2, 3)]
        for measure, pair in ((coupling, (first, second)), (coupling, (second, first)), (coupling_abs, (first, second)))
    ]
    for own, golden in zip(found, GOLDEN[case], strict=True):
        assert own == pytest.approx(golden, rel=1e-6)
    if size == 4:
        assert float(coupling(first, second, 2, p=1)) == pytest.approx(0.498562186, rel=1e-6)


def blocks(skip: bool) -> list:
    """x -> x + V tanh(W x) / 4, of tokens one by one."""
    w, v, w2, v2 = (powers(4, 4, start) for start in (1, 2, 3, 4))
    return [lambda x, w=w, v=v: skip * x + torch.tanh(x @ w.T) @ v.T / 4 for w, v in ((w, v), (w2, v2))]


@pytest.mark.parametrize("skip", [True, False])
def test_golden_coupling_of_two_blocks(skip: bool) -> None:
    start = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    first = block_jacobian(blocks(skip)[0], start, skip=skip)
    second = block_jacobian(blocks(skip)[1], blocks(True)[0](start), skip=skip)
    assert float(coupling(first, second, 2)) == pytest.approx(1.115119592, rel=1e-6)
    assert float(coupling(second, first, 2)) == pytest.approx(0.984488362, rel=1e-6)


def test_jacobians_between_tokens_are_those_of_differences() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.3, norm_first=True, batch_first=True).double().eval()
    rows, step = powers(3, 6, 1), 1e-6
    for token, source in ((-1, None), (2, 0), (0, 0), (1, 2)):
        found = block_jacobian(layer, rows, token, source)
        at = token if source is None else source
        columns = []
        for unit in torch.eye(6, dtype=torch.float64):
            moved = [rows.clone(), rows.clone()]
            moved[0][at] += step * unit
            moved[1][at] -= step * unit
            up, down = (layer(tokens[None])[0, token] for tokens in moved)
            columns.append((up - down) / (2 * step))
        expected = torch.stack(columns, -1) - torch.eye(6, dtype=torch.float64) * (at % 3 == token % 3)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-8)
    batch = block_jacobian(layer, torch.stack([rows, 2 * rows]))
    torch.testing.assert_close(batch[0], block_jacobian(layer, rows))


def test_rows_that_stand_alone_have_a_jacobian_each() -> None:
    layer, rows = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)).double(), powers(3, 4, 1)
    together = block_jacobian(layer, rows, token=None, skip=False)
    for row, found in zip(rows, together, strict=True):
        torch.testing.assert_close(found, block_jacobian(layer, row, skip=False))
    assert torch.equal(block_jacobian(nn.Identity(), rows, token=None), torch.zeros(3, 4, 4, dtype=torch.float64))


def test_coupling_knows_equal_scaled_and_opposed_blocks() -> None:
    block = powers(5, 5, 2)
    assert float(coupling(block, 7 * block, 3)) < 1e-13
    assert float(coupling(block, -block, 3)) == pytest.approx(2, rel=1e-12)
    assert float(coupling_abs(block, -block, 3)) < 1e-13


def test_arbitrary_singular_vectors_give_no_number() -> None:
    flat = powers(4, 1, 1) @ powers(1, 4, 2)  # of rank 1
    assert coupling(powers(4, 4, 1), flat, 1).isfinite()
    assert coupling(powers(4, 4, 1), flat, 2).isnan()
    assert coupling(torch.zeros(4, 4), powers(4, 4, 1), 2).isnan()
    both = coupling(torch.stack([powers(4, 4, 1)] * 2), torch.stack([flat, powers(4, 4, 2)]), 2)
    assert both.isnan().tolist() == [True, False]


def test_line_shape_score() -> None:
    assert float(line_shape_score(powers(5, 3, 1))) == pytest.approx(4.025547036, rel=1e-6)
    line = torch.arange(5.0)[:, None] * torch.tensor([1.0, 2.0])
    assert float(line_shape_score(line)) == pytest.approx(1, rel=1e-12)
    assert line_shape_score(torch.stack([line, line.flip(0)])).shape == (2,)
    assert line_shape_score(line[[0, 0, 1]]).isnan()
    assert float(norm_growth_variation(2.0 ** torch.arange(4.0)[:, None])) == pytest.approx(0, abs=1e-12)


def test_residual_alignment_of_a_network_that_moves_along_one_line() -> None:
    direction = torch.linalg.qr(powers(6, 6, 1)).Q[:, :2]
    block = direction @ torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64)) @ direction.T / 4
    path = powers(3, 1, 1)[:, None] + torch.arange(5.0)[:, None] * direction[:, 0]
    aligned = residual_alignment(path, [block] * 4, num_classes=2)
    assert float(aligned.line) == pytest.approx(1, rel=1e-9) and float(aligned.spacing) < 1e-9
    assert float(aligned.coupling) < 1e-12 and float(aligned.left_right) == pytest.approx(1, rel=1e-9)
    assert aligned.rank.tolist() == [2] * 4 and aligned.beyond.max() < 1e-20
    assert aligned.largest.tolist() == pytest.approx([1] * 4)
    others = residual_alignment(powers(5, 6, 1), [powers(6, 6, start) for start in range(4)], num_classes=2)
    assert float(others.line) > 2 and float(others.coupling) > 0.5 and others.rank.min() > 2


def test_what_is_not_finite_gives_no_number_and_takes_no_other_member_along() -> None:
    pair, broken = torch.stack([powers(4, 4, 1)] * 2), torch.stack([powers(4, 4, 2)] * 2)
    broken[0, 1, 2] = torch.nan
    for measure in (coupling, coupling_abs):
        assert measure(pair, broken, 2).isnan().tolist() == measure(broken, pair, 2).isnan().tolist() == [True, False]
    found = residual_alignment(powers(3, 4, 1), [pair, broken], 2)
    for number in (found.coupling, found.left_right, *(each[:, 1] for each in found[4:])):
        assert number.isnan().tolist() == [True, False]


def test_a_stack_of_blocks_is_measured_pair_by_pair() -> None:
    stack, rows = blocks(True), powers(3, 4, 5)
    found = stack_alignment(stack, rows, 2, token=None)
    one_by_one = []
    for row in rows:
        jacobians = [block_jacobian(stack[0], row), block_jacobian(stack[1], stack[0](row))]
        one_by_one.append([[coupling(first, second, 2) for second in jacobians] for first in jacobians])
    torch.testing.assert_close(found.couplings, torch.tensor(one_by_one).mean(0), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.path[:, 2], stack[1](stack[0](rows)))
    assert float(found.alignment.line) == pytest.approx(float(line_shape_score(found.path).mean()))
    tokens = stack_alignment(stack, rows.reshape(3, 1, 4), 2)  # of one token each
    torch.testing.assert_close(tokens.couplings, found.couplings, rtol=1e-9, atol=1e-12)
    opposed = stack_alignment([stack[0], lambda x: 2 * x - stack[0](x)], 0 * rows, 2, token=None)
    assert float(opposed.couplings[0, 1]) == pytest.approx(2)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda m: coupling(m, m, 0), "k must be an int in 1..4, got 0"),
        (lambda m: coupling(m, m, 5), "k must be an int in 1..4, got 5"),
        (lambda m: coupling(m, m[:3], 1), "one shape"),
        (lambda m: coupling(m.expand(3, 4, 4), m.expand(2, 4, 4), 1), "one shape"),
        (lambda m: line_shape_score(m[:1]), "at least two points"),
        (lambda m: block_jacobian(lambda x: x[..., :2], m[0]), r"a Jacobian of shape \(2, 4\)"),
        (lambda m: block_jacobian(lambda x: x, m, token=1.5), "one of the 4 tokens, got 1.5"),
        (lambda m: block_jacobian(lambda x: x, m.expand(0, 4, 4)), "B at least 1"),
        (lambda m: residual_alignment(m, [m, m[:3], m], 2), r"of shape \(3, 4\) and \(4, 4\), and 4"),
        (lambda m: residual_alignment(m, [], 2), "got 0 of shape none"),
        (lambda m: residual_alignment(m, [m] * 3, 2.5), "k must be an int in 1..4, got 2.5"),
        (lambda m: residual_alignment(m, [m] * 3, "2"), "k must be an int in 1..4, got '2'"),
        (lambda m: residual_alignment(m, None, 2), "jacobians must be L >= 2 matrices of one shape, got NoneType"),
        (lambda m: coupling(m, m, 2, p=0), "p must be a finite positive number, got 0"),
        (lambda m: block_jacobian(lambda x: x, m, token=4), "one of the 4 tokens, got 4"),
        (lambda m: residual_alignment(m, [m, m], 2), "L \\+ 1 points"),
        (lambda m: stack_alignment([lambda x: x], m, 2, token=None), "at least two, got 1"),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call(powers(4, 4, 1))
