"""The kernel's batch norm against PyTorch's in float64, and what a training with it leaves as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pipeline.networks import build_backbone
from pipeline.runs.training import native_norm
from pipeline.runs.training.channels_last import ChannelsLast
from pipeline.runs.training.native_norm import NativeNorm, why_not
from pipeline.runtime import ranks

EPS = torch.finfo(torch.float32).eps
pytestmark = pytest.mark.skipif(native_norm.library() is None, reason="no C++ compiler")

SHAPES = [(8, 16, 9, 7), (4, 13, 5, 5), (6, 5, 1, 1), (1, 3, 8, 8), (3, 1, 4, 4), (2, 40, 6, 6)]


def drawn(shape: tuple[int, ...], offset: float = 1.0) -> tuple[Tensor, Tensor]:
    """Maps whose channels differ in level and spread, and gradients, which are not zero on average."""
    source = torch.Generator().manual_seed(0)
    spread, level = (torch.rand(shape[1], 1, 1, generator=source) for _ in range(2))
    maps = torch.randn(shape, generator=source) * (spread + 0.1) + offset * level
    return maps, torch.randn(shape, generator=source) + 0.3


def norm_of(channels: int, **options: object) -> nn.BatchNorm2d:
    norm, source = nn.BatchNorm2d(channels, **options), torch.Generator().manual_seed(1)
    if norm.affine:
        for parameter in norm.parameters():
            nn.init.normal_(parameter, 1.0, 0.5, generator=source)
    return norm


def passed(norm: nn.BatchNorm2d, run, maps: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """Output, gradients and buffers after two passes, the second of which is differentiated."""
    maps = maps.clone().requires_grad_()
    run(maps)
    outputs = run(maps)
    found = torch.autograd.grad(outputs, [maps, *norm.parameters()], gradient)
    names = ["maps", *dict(norm.named_parameters())]
    return {"outputs": outputs.detach(), **dict(zip(names, found, strict=True)), **dict(norm.named_buffers())}


def errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """The largest, over the largest number."""
    return {
        name: float((found[name].double() - value).abs().max() / value.abs().max().clamp(min=1e-30))
        for name, value in exact.items()
    }


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}])
def test_it_is_right_up_to_the_last_digit_of_float32(shape, training, options):
    norm, (maps, gradient) = norm_of(shape[1], **options).train(training), drawn(shape)
    exactly, plainly = copy.deepcopy(norm).double(), copy.deepcopy(norm)
    exact = passed(exactly, exactly, maps.double(), gradient.double())
    plain = errors(passed(plainly, plainly, maps, gradient), exact)
    found = passed(norm, NativeNorm(norm), maps.contiguous(memory_format=torch.channels_last), gradient)
    assert found["outputs"].is_contiguous(memory_format=torch.channels_last)
    for name, error in errors(found, exact).items():
        assert error <= max(3 * EPS, plain[name]), f"{name}: {error:.1e}, PyTorch's {plain[name]:.1e}"
    if "num_batches_tracked" in exact:
        assert found["num_batches_tracked"] == exact["num_batches_tracked"] == 2 * training


def test_a_level_far_above_the_spread_costs_no_digits_of_the_variance():
    norm, (maps, gradient) = norm_of(6), drawn((16, 6, 8, 8), offset=1e3)
    exactly, plainly = copy.deepcopy(norm).double(), copy.deepcopy(norm)
    exact = passed(exactly, exactly, maps.double(), gradient.double())
    found = errors(passed(norm, NativeNorm(norm), maps, gradient), exact)
    plain = errors(passed(plainly, plainly, maps, gradient), exact)
    assert found["outputs"] < 4 * EPS and found["maps"] < 4 * EPS < plain["outputs"]


@pytest.mark.parametrize("training", [True, False])
def test_bf16_maps_have_exact_statistics_and_are_rounded_once(training):
    norm, (maps, gradient) = norm_of(21).train(training), [it.bfloat16() for it in drawn((8, 21, 6, 6))]
    exactly = copy.deepcopy(norm).double()
    exact = passed(exactly, exactly, maps.double(), gradient.double())
    found = passed(norm, NativeNorm(norm), maps, gradient)
    for name, value in exact.items():
        half = name in ("outputs", "maps")
        assert found[name].dtype == (torch.bfloat16 if half else norm.state_dict().get(name, maps.float()).dtype)
        if half:
            off = (found[name].double() - value).abs()
            assert (off <= 2**-8 * value.abs() + 1e-6).all()  # half a unit in the last place of eight bits
        else:
            assert errors(found, exact)[name] < 3 * EPS


def test_bits_do_not_depend_on_threads_nor_on_who_runs_them(monkeypatch):
    maps, gradient = drawn((16, 20, 16, 16))
    before, found = torch.get_num_threads(), []
    try:
        for threads, launch in ((1, True), (2, True), (3, False)):
            torch.set_num_threads(threads)
            if not launch:
                monkeypatch.setattr(native_norm, "openmp", lambda: None)
            norm = norm_of(20)
            found.append(passed(norm, NativeNorm(norm), maps, gradient))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each[name], value) for each in found[1:] for name, value in found[0].items())


def test_two_ranks_normalise_over_the_batches_of_both(monkeypatch):
    maps, gradient = drawn((12, 5, 4, 4))
    whole, parts = norm_of(5), [norm_of(5), norm_of(5)]
    exact = passed(whole, NativeNorm(whole), maps, gradient)
    shares = [slice(0, 4), slice(4, 12)]

    def of_both(step):
        """What both ranks find where sums over ranks are those that were told in a first round."""
        told: list[list[Tensor]] = [[], []]
        for rank in (0, 1):
            monkeypatch.setattr(ranks, "total", lambda own, rank=rank: told[rank].append(own.clone()) or own)
            step(copy.deepcopy(parts[rank]), shares[rank])
        found = []
        for rank in (0, 1):
            others = iter(told[1 - rank])
            monkeypatch.setattr(ranks, "total", lambda own, others=others: own.add_(next(others)))
            found.append(step(parts[rank], shares[rank]))
        return found

    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    found = of_both(lambda norm, share: NativeNorm(norm)(maps[share]).detach())
    torch.testing.assert_close(torch.cat(found), exact["outputs"], rtol=1e-6, atol=1e-6)
    assert torch.equal(parts[0].running_var, parts[1].running_var)
    once = norm_of(5)
    once(maps)
    torch.testing.assert_close(parts[0].running_var, once.running_var, rtol=1e-6, atol=0)


def test_the_network_is_as_it_was_after_a_call_and_an_error():
    network = build_backbone("resnet20", (1, 8, 8))
    seen, names = [], list(network.state_dict())
    network.network.bn1.register_forward_hook(lambda part, inputs, output: seen.append(output.stride(1)))
    run = ChannelsLast(network)
    assert run(torch.randn(4, 1, 8, 8)).shape == (4, 64) and seen == [1]  # hooks see maps, channels last
    with pytest.raises(RuntimeError):
        run(torch.randn(4, 2, 8, 8))
    assert not any("forward" in part.__dict__ for part in network.modules())
    assert list(network.state_dict()) == names
    assert all(value.is_contiguous() for value in network.state_dict().values())


def test_a_batch_of_one_number_a_channel_is_the_error_it_was():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        NativeNorm(norm_of(3))(torch.randn(1, 3, 1, 1))


def test_networks_with_other_norms_or_dropout_are_left_alone():
    conv, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
    assert why_not(nn.Sequential(conv, norm)) is None
    assert why_not(nn.Sequential(conv)) == "no batch norms of maps"
    assert why_not(nn.Sequential(conv, norm, nn.GroupNorm(2, 4))) == "norms of other kinds"
    assert why_not(nn.Sequential(conv, norm, nn.SyncBatchNorm(4))) == "norms of other kinds"
    assert why_not(nn.Sequential(conv, norm, nn.Dropout2d(0.1))) == "dropout"
    assert why_not(nn.Sequential(conv, norm.double())) == "norms that are not of float32"
