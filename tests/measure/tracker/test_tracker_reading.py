"""The tracker reads layers of any layout, by pattern, and says what it reads."""

import pytest
import torch
from torch import Tensor, nn

from pipeline import CollapseTracker
from pipeline.metrics import dnc1, layer_metrics, ncm_accuracy
from pipeline.networks.reading import Reading

LABELS = torch.arange(24) % 3
IDS = torch.randint(1, 12, (24, 7), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.randint(2, 8, (24,), generator=torch.Generator().manual_seed(1))
MASK = torch.arange(7) < LENGTHS[:, None]


class Text(nn.Module):
    """Tokens through an LSTM that gives a tuple, and a dict at the end."""

    def __init__(self, first: bool = False):
        super().__init__()
        self.embed, self.lstm, self.act, self.head = nn.Embedding(12, 6), nn.LSTM(6, 5), nn.ReLU(), nn.Linear(5, 3)
        self.first = first

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        tokens = self.act(self.lstm(self.embed(ids).transpose(0, 1))[0].transpose(0, 1))
        if attention_mask is not None:
            tokens = tokens * attention_mask[..., None]
            pooled = tokens.sum(1) / attention_mask.sum(1, keepdim=True)
        else:
            pooled = tokens[:, 0] if self.first else tokens.mean(1)
        return {"logits": self.head(pooled), "pooled": pooled}


def model(**settings) -> Text:
    torch.manual_seed(0)
    return Text(**settings).double()


def tokens_of(network: Text) -> Tensor:
    with torch.no_grad():
        return network.lstm(network.embed(IDS).transpose(0, 1))[0].transpose(0, 1).relu()


def batches(inputs=IDS, size: int = 10):
    for start in range(0, 24, size):
        stop = start + size
        own = {name: value[start:stop] for name, value in inputs.items()} if isinstance(inputs, dict) else None
        yield (inputs[start:stop] if own is None else own), LABELS[start:stop]


def value(tracker: CollapseTracker, place: str, metric: str = "dnc1") -> float:
    return tracker.latest[f"{place}/{metric}"]


def close(found: float, rows: Tensor, labels: Tensor = LABELS) -> bool:
    return found == pytest.approx(dnc1(rows, labels, 3).item(), rel=1e-9)


@pytest.mark.parametrize("listened", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_tokens_are_read_where_the_head_reads_them(first, listened):
    network = model(first=first)
    tracker = CollapseTracker(network, 3, ["act"])
    if listened:
        for ids, labels in batches():
            with tracker.listen(labels):
                network.eval()(ids)
        tracker.compute()
    else:
        tracker.measure(list(batches()))
    tokens = tokens_of(network)
    assert close(value(tracker, "act/post"), tokens[:, 0] if first else tokens.mean(1))
    expected = "class token of 7 tokens" if first else "mean of 7 tokens"
    assert tracker.reads["act/post"].startswith(expected)


def test_every_token_is_a_row_also_in_a_second_look():
    network = model()
    tracker = CollapseTracker(
        network, 3, ["act"], read={"a*": "positions"}, metrics=["dnc1", "ncm_accuracy", "nc1_pinv"]
    )
    tracker.measure(list(batches()))
    rows, labels = tokens_of(network).reshape(-1, 5), LABELS.repeat_interleave(7)
    assert close(value(tracker, "act/post"), rows, labels)
    expected = ncm_accuracy(rows, labels, rows, labels, 3).item()
    assert value(tracker, "act/post", "ncm_accuracy") == pytest.approx(expected)
    whole = layer_metrics(rows, labels, 3)
    assert value(tracker, "act/post", "nc1_pinv") == pytest.approx(whole["nc1_pinv"].item(), rel=1e-9)


def test_padded_tokens_do_not_count_where_the_model_gets_a_mask():
    network = model()
    inputs = {"ids": IDS, "attention_mask": MASK.long()}
    tokens = tokens_of(network)
    expected = (tokens * MASK[..., None]).sum(1) / LENGTHS[:, None]
    tracker = CollapseTracker(network, 3, ["act"])
    tracker.measure(list(batches(inputs)))
    assert close(value(tracker, "act/post"), expected)
    tracker = CollapseTracker(network, 3, ["act"], read={"act": "positions"})
    tracker.measure(list(batches(inputs)))
    assert close(value(tracker, "act/post"), tokens[MASK], LABELS.repeat_interleave(LENGTHS))


def test_a_mask_is_given_for_layers_by_pattern():
    network = model()
    ids = IDS * MASK
    read = {"act": Reading("last", mask=lambda ids: ids != 0)}
    tracker = CollapseTracker(network, 3, ["act", "head:pre"], read=read)
    tracker.measure(list(batches(ids)))
    with torch.no_grad():
        tokens = network.lstm(network.embed(ids).transpose(0, 1))[0].transpose(0, 1).relu()
    assert close(value(tracker, "act/post"), tokens[range(24), LENGTHS - 1])
    assert close(value(tracker, "head/pre"), tokens.mean(1))


def test_a_head_that_reads_other_tokens_of_each_sample_is_refused_without_a_mask():
    class Lengths(Text):
        def forward(self, ids: Tensor) -> Tensor:
            tokens = self.act(self.lstm(self.embed(ids).transpose(0, 1))[0].transpose(0, 1))
            return self.head(tokens[range(len(ids)), (ids != 0).sum(1) - 1])

    torch.manual_seed(0)
    network = Lengths().double()
    ids = IDS * (torch.arange(7) < torch.tensor([7, 3] * 12)[:, None])
    with pytest.raises(ValueError, match=r"'act' \(post\).*reads other tokens of one sample.*mask.*read="):
        CollapseTracker(network, 3, ["act"]).measure(list(batches(ids)))


def test_functions_take_tuples_and_dicts():
    network = model()
    read = {nn.LSTM: lambda output: output[1][0][0]}
    tracker = CollapseTracker(network, 3, ["lstm", "embed"], read=read)
    tracker.measure(list(batches()))
    with torch.no_grad():
        last = network.lstm(network.embed(IDS).transpose(0, 1))[1][0][0]
    assert close(value(tracker, "lstm/post"), last)
    assert tracker.undefined["lstm/post/active_units"].startswith("a function made the rows")
    wrapper = nn.Sequential(network)
    tracker = CollapseTracker(wrapper, 3, ["0"], read={"0": lambda output: output["pooled"]})
    tracker.measure(list(batches()))
    assert close(value(tracker, "0/post"), tokens_of(network).mean(1))
    with pytest.raises(ValueError, match=r"'lstm' \(post\) gives a tuple.*read=\{'lstm': .*lambda output: output\[0\]"):
        CollapseTracker(network, 3, ["lstm"]).measure(list(batches()))


def test_units_are_counted_before_maps_are_averaged():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()).double()
    images = torch.randn(24, 1, 9, 9).double()
    tracker = CollapseTracker(network, 3, ["1"])
    tracker.measure([(images[:10], LABELS[:10]), (images[10:], LABELS[10:])])
    with torch.no_grad():
        expected = (network(images) != 0).double().mean().item()
    assert value(tracker, "1/post", "active_units") == pytest.approx(expected) and 0.2 < expected < 0.8


def test_layers_are_meant_by_class_by_module_and_at_any_depth():
    network = model()
    places = lambda layers: list(CollapseTracker(network, 3, layers)._taps)  # noqa: E731
    assert places(nn.Embedding) == [("embed", "post")]
    assert places([network.act, (nn.Linear, "pre")]) == [("act", "post"), ("head", "pre")]
    assert places("**") == [(name, "post") for name in ("embed", "lstm", "act", "head")]


@pytest.mark.parametrize(
    ("read", "message"),
    [
        ({"embed": "mean"}, r"read=\{'embed': \.\.\.\} means none of the layers that are measured"),
        ({"at": "mean"}, r"layer pattern 'at' matches no module of this Text, did you mean 'act'"),
        ({"act": "max"}, r"cannot be read as 'max'; allowed: mean, cls, last"),
    ],
)
def test_readings_that_mean_nothing_are_refused(read, message):
    with pytest.raises(ValueError, match=message):
        CollapseTracker(model(), 3, ["act"], read=read)


def test_batches_with_their_samples_second_are_read_along_that_axis():
    torch.manual_seed(0)
    network = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0).double()
    tokens = torch.randn(7, 24, 6).double()
    tracker = CollapseTracker(network, 3, ["norm2"])
    tracker.measure([(tokens[:, :10], LABELS[:10]), (tokens[:, 10:], LABELS[10:])])
    with torch.no_grad():
        assert close(value(tracker, "norm2/post"), network(tokens).mean(0))
