"""Rows of an activation, by every way to read one."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.networks.reading import Reading, mask_of
from pipeline.networks.rows import Layout, Rows

TOKENS = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)).relu()
MAPS = torch.randn(4, 5, 6, 3, generator=torch.Generator().manual_seed(1)).relu()  # (N, H, W, C)
MASK = torch.arange(6) < torch.tensor([6, 1, 3, 4])[:, None]
NLC = Layout(0, 2, 3)


def rows(how, value: Tensor, layout=NLC, mask=None) -> Rows:
    return Reading.of(how).rows(value, layout, mask)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", TOKENS.mean(1)),
        ("cls", TOKENS[:, 0]),
        ("last", TOKENS[:, -1]),
        ("flatten", TOKENS.flatten(1)),
        ("ncl", TOKENS.mean(2)),
        ("ncl+last", TOKENS[:, :, -1]),
        (lambda tokens: tokens[:, 2], TOKENS[:, 2]),
        (Reading("cls"), TOKENS[:, 0]),
    ],
)
def test_each_way_gives_one_row_per_sample(how, expected):
    found = rows(how, TOKENS)
    torch.testing.assert_close(found.values, expected)
    assert found.num_samples == 4 and found.samples is None


def test_every_position_is_a_row_with_the_label_of_its_sample():
    for found, expected in (
        (rows("positions", TOKENS), TOKENS.reshape(-1, 3)),
        (rows("nhwc+positions", MAPS), MAPS.reshape(-1, 3)),
        (rows("nchw+positions", MAPS.permute(0, 3, 1, 2)), MAPS.reshape(-1, 3)),
        (rows(lambda tokens: tokens[:, 1:], TOKENS), TOKENS[:, 1:].reshape(-1, 3)),
    ):
        torch.testing.assert_close(found.values, expected)
        labels = torch.tensor([7, 8, 9, 10])
        assert torch.equal(found.of(labels), labels.repeat_interleave(len(expected) // 4))
        both = Rows.joined([found, found])
        assert torch.equal(both.of(torch.arange(8)), torch.arange(8).repeat_interleave(len(expected) // 4))
        assert len(found.first(1).values) == len(expected) // 4


def test_sequences_with_samples_second_are_turned_round():
    for how, expected in (("tnc", TOKENS.mean(1)), ("tnc+cls", TOKENS[:, 0]), ("tnc+flatten", TOKENS.flatten(1))):
        torch.testing.assert_close(rows(how, TOKENS.transpose(0, 1)).values, expected)


def test_padded_tokens_do_not_count():
    torch.testing.assert_close(
        rows("mean", TOKENS, mask=MASK).values,
        torch.stack([tokens[inside].mean(0) for tokens, inside in zip(TOKENS, MASK, strict=True)]),
    )
    torch.testing.assert_close(rows("last", TOKENS, mask=MASK).values, TOKENS[range(4), MASK.sum(1) - 1])
    found = rows("positions", TOKENS, mask=MASK)
    torch.testing.assert_close(found.values, TOKENS[MASK])
    assert found.of(torch.arange(4)).tolist() == [0] * 6 + [1] + [2] * 3 + [3] * 4
    spoilt = torch.where(MASK[..., None], TOKENS, torch.nan)
    torch.testing.assert_close(rows("mean", spoilt, mask=MASK).values, rows("mean", TOKENS, mask=MASK).values)


def test_active_units_are_those_of_what_is_read():
    share = lambda value: (value != 0).double().mean().item()  # noqa: E731
    for how, expected in (("mean", share(TOKENS)), ("nhwc", share(MAPS))):
        found = rows(how, TOKENS if how == "mean" else MAPS)
        assert found.active.sum().item() / found.values.numel() == pytest.approx(expected)
        assert 0 < expected < 1 and share(found.values) > expected
    masked = rows("mean", TOKENS, mask=MASK).active / 3
    assert masked.tolist() == pytest.approx([share(t[inside]) for t, inside in zip(TOKENS, MASK, strict=True)])
    assert rows("cls", TOKENS).active is None  # the rows are the units
    assert rows(lambda tokens: tokens.mean(1), TOKENS).active.isnan().all()  # nobody knows


def test_a_mask_is_an_argument_of_the_model_by_name_or_made_by_a_function():
    class Model(nn.Module):
        def forward(self, ids, attention_mask=None, src_key_padding_mask=None):
            return ids

    model, ids = Model(), torch.tensor([[5, 6, 0], [7, 0, 0]])
    real = ids != 0
    assert mask_of(None, model, (ids,), {}) is None
    for found in (
        mask_of(None, model, (ids, real), {}),
        mask_of("attention_mask", model, (ids,), {"attention_mask": real.long()}),
        mask_of("src_key_padding_mask", model, (ids,), {"src_key_padding_mask": ~real}),
        mask_of("attention_mask", model, ({"ids": ids, "attention_mask": real},), {}),
        mask_of(lambda ids: ids != 0, model, (ids,), {}),
    ):
        assert torch.equal(found, real)
    with pytest.raises(ValueError, match="mask='lengths' finds a NoneType instead of a mask"):
        mask_of("lengths", model, (ids,), {})


@pytest.mark.parametrize("how", ["max", "nhwc+ncl", "cls+last", "", "nhhc", "hwc", 3, None])
def test_what_is_no_way_to_read_is_refused(how):
    with pytest.raises(ValueError, match="allowed: mean, cls, last, flatten, positions, a layout such as nhwc"):
        Reading(how)


@pytest.mark.parametrize(
    ("how", "value", "message"),
    [
        ("cls", TOKENS[:, 0], r"\(4, 3\), which has no tokens"),
        ("nhwc+cls", MAPS, r"has no single axis of tokens"),
        ("mean", (TOKENS, TOKENS), "gives a tuple, which is not numbers"),
        ("mean", TOKENS > 0, "gives a torch.bool tensor"),
        ("nhwc", TOKENS, r"\(4, 6, 3\), but is read as 4 axes"),
        (lambda tokens: tokens[:, 0, 0], TOKENS, r"returns a torch.float32 tensor of shape \(4,\) instead of \(N, d\)"),
        (lambda tokens: None, TOKENS, "returns a NoneType"),
    ],
)
def test_what_cannot_be_read_so_says_why(how, value, message):
    with pytest.raises(ValueError, match=message):
        rows(how, value, Layout() if getattr(value, "ndim", 3) == 2 else NLC)
