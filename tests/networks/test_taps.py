"""Taps read what enters and leaves a layer, as it is at that moment, and tell when they could not."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.metrics import CollapseMetrics, dnc1
from pipeline.networks.rows import Rows
from pipeline.networks.taps import Tap, Taps


class Block(nn.Module):
    """A residual block whose last operation is an in-place ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.conv(x))


class Network(nn.Module):
    """Two blocks, a global average pool, and a head of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(3), Block(3))
        self.hidden = nn.Linear(3, 4)
        self.act = nn.ReLU(inplace=True)
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.hidden(self.blocks(x).mean((2, 3)))))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network().eval().requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def number_of_hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_pre_and_post_of_an_in_place_activation_are_its_input_and_its_output(network: Network, images: Tensor) -> None:
    with Taps(network, {("1", "pre"): Tap("act", "pre"), ("1", "post"): Tap("act")}) as taps:
        network(images)
    expected = network.hidden(network.blocks(images).mean((2, 3)))
    assert (expected < 0).any()
    torch.testing.assert_close(taps["1", "pre"], expected, rtol=0, atol=0)
    torch.testing.assert_close(taps["1", "post"], expected.relu(), rtol=0, atol=0)


def test_an_output_is_kept_as_it_was_before_a_later_in_place_operation(network: Network, images: Tensor) -> None:
    with Taps(network, ["hidden"]) as taps:  # the ReLU after `hidden` overwrites that very tensor
        network(images)
    assert (taps["hidden"] < 0).any()


def test_conv_maps_are_averaged_over_space_or_flattened(network: Network, images: Tensor) -> None:
    taps = Taps(network, {"mean": Tap("blocks.0"), "all": Tap("blocks.0", read="flatten")})
    with taps:
        network(images)
    maps = network.blocks[0](images)
    torch.testing.assert_close(taps["mean"], maps.sum((2, 3)) / 36)
    torch.testing.assert_close(taps["all"], maps.reshape(5, 108), rtol=0, atol=0)


def test_pre_side_of_a_block_s_last_activation_is_the_sum_before_it(network: Network, images: Tensor) -> None:
    with Taps(network, {"sum": Tap("blocks.0.act", "pre", "flatten")}) as taps:
        network(images)
    torch.testing.assert_close(taps["sum"], (images + network.blocks[0].conv(images)).flatten(1))


def test_token_sequences_are_averaged_over_tokens() -> None:
    tokens = torch.arange(24.0).reshape(2, 3, 4)
    module = nn.Linear(4, 4)
    with Taps(module, {0: Tap("", "pre")}) as taps:
        module(tokens)
    torch.testing.assert_close(taps[0], torch.stack([tokens[0].sum(0), tokens[1].sum(0)]) / 3)


def test_half_precision_maps_are_averaged_in_float32() -> None:
    maps = torch.full((1, 1, 4, 4), 1.0, dtype=torch.bfloat16)
    maps[0, 0, 0, 0] = 1.0625  # mean 1 + 1/256, which bfloat16 cannot hold
    module = nn.Identity()
    with Taps(module, [""]) as taps:
        module(maps)
    assert taps[""].dtype == torch.float32
    assert taps[""].item() == 1 + 1 / 256


def test_listener_streams_collapse_metrics_over_batches_and_nothing_is_kept(network: Network) -> None:
    images = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(40) % 2
    batches = [slice(0, 16), slice(16, 32), slice(32, 40)]
    metrics = {"blocks.0": CollapseMetrics(2, 3), "act": CollapseMetrics(2, 4)}
    seen: dict[str, list[Tensor]] = {name: [] for name in metrics}

    def listen(name: str, rows: Rows) -> None:
        metrics[name].update(rows.values, labels[batches[len(seen[name])]])
        seen[name].append(rows.values.clone())

    with Taps(network, list(metrics), listen) as taps:
        for batch in batches:
            network(images[batch])
    for name, metric in metrics.items():
        torch.testing.assert_close(metric.compute()["dnc1"], dnc1(torch.cat(seen[name]), labels, 2), rtol=1e-10, atol=0)
    with pytest.raises(KeyError):
        taps["act"]


def test_features_carry_no_graph(images: Tensor) -> None:
    network = Network()
    with Taps(network, ["hidden", "blocks.1"]) as taps:
        network(images).sum().backward()
    assert not taps["hidden"].requires_grad
    assert not taps["blocks.1"].requires_grad


def test_hooks_are_removed_on_leaving_also_after_an_error(network: Network, images: Tensor) -> None:
    with Taps(network, ["act", "blocks.0"]):
        network(images)
        assert number_of_hooks(network) == 3
    assert number_of_hooks(network) == 0
    with pytest.raises(ZeroDivisionError), Taps(network, ["unused"]):  # and the silent tap hides nothing
        raise ZeroDivisionError
    assert number_of_hooks(network) == 0


def test_a_tap_that_never_fired_is_named_on_leaving(network: Network, images: Tensor) -> None:
    with (
        pytest.raises(RuntimeError, match=r"never fired.*'unused' \(pre\)"),
        Taps(network, {0: Tap("unused", "pre"), 1: Tap("act")}),
    ):
        network(images)


def test_unknown_module_name_lists_close_ones(network: Network) -> None:
    with pytest.raises(ValueError, match=r"'block\.1' is not in this Network, did you mean 'blocks\.1'"):
        Taps(network, ["block.1"])


def test_unknown_sides_and_readings_are_refused() -> None:
    with pytest.raises(ValueError, match="side must be one of pre, post, got 'after'"):
        Tap("act", "after")
    with pytest.raises(ValueError, match="cannot be read as 'max'; allowed: mean, cls, last, flatten"):
        Tap("act", read="max")


def test_a_module_used_twice_in_one_pass_is_refused_but_once_in_each_of_two_passes_is_fine() -> None:
    act = nn.ReLU()
    network = nn.Sequential(nn.Linear(3, 3), act, nn.Linear(3, 3), act)
    with pytest.raises(RuntimeError, match="'1' ran more than once in one pass"), Taps(network, ["1"]):
        network(torch.ones(2, 3))
    with Taps(network, ["2"]) as taps:
        network(torch.zeros(2, 3))
        network(torch.ones(4, 3))
    assert taps["2"].shape == (4, 3)


def test_outputs_that_are_not_features_are_refused() -> None:
    recurrent = nn.LSTM(3, 3)
    with (
        pytest.raises(ValueError, match=r"'the module itself' \(post\) gives a tuple, which is not"),
        Taps(recurrent, [""]),
    ):
        recurrent(torch.zeros(2, 1, 3))
    identity = nn.Identity()
    with pytest.raises(ValueError, match=r"gives a torch\.float32 tensor of shape \(3,\)"), Taps(identity, [""]):
        identity(torch.zeros(3))


def test_inputs_passed_by_name_are_read(network: Network, images: Tensor) -> None:
    with Taps(network, {"input": Tap("", "pre", "flatten")}) as taps:
        network(x=images)
    torch.testing.assert_close(taps["input"], images.flatten(1), rtol=0, atol=0)


@pytest.mark.parametrize("run_before", [False, True])
@pytest.mark.parametrize("compiled", ["wrapped", "in place", "holder"])
def test_what_is_compiled_is_read_as_it_runs_eagerly_and_stays_compiled(
    network: Network, images: Tensor, compiled: str, run_before: bool
) -> None:
    with Taps(network, ["blocks.0"]) as expected:
        network(images)
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    called: nn.Module = network
    if compiled == "wrapped":
        called = torch.compile(network, backend=backend)
    elif compiled == "in place":
        network.compile(backend=backend)
    else:
        network.blocks = torch.compile(network.blocks, backend=backend)
    if run_before:
        called(images)
    compilations = len(graphs)
    name = "blocks._orig_mod.0" if compiled == "holder" else "blocks.0"
    with Taps(network, [name]) as taps:
        called(images)
    torch.testing.assert_close(taps[name], expected["blocks.0"], rtol=0, atol=0)
    assert len(graphs) == compilations
    called(images)
    assert len(graphs) >= 1
