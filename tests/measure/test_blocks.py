"""Jacobians of blocks: those of differences and of `block_jacobian`; which blocks make a row; what a run records."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline.data import ImageData, Split
from pipeline.measure.blocks import rows_of_blocks, sizes_of_rows, told
from pipeline.measure.costs import family_bytes
from pipeline.measure.layers import measure_backbone
from pipeline.metrics import block_jacobian, jacobians, stack_alignment
from pipeline.metrics.engine.block_stack import BlockOfStack, BlockStack
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.networks import Backbone, build_backbone

ASKED = MeasureSettings(("core", "jacobians"), pairs="all", jacobian_samples=4, coupling_rank=3)


@pytest.fixture(scope="module")
def images() -> ImageData:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        labels = torch.arange(count) % 2
        return Split(torch.randn(count, 1, 4, 4, generator=generator) + labels[:, None, None, None], labels)

    made = ImageData.from_splits("drawn", split(12), split(8), ("a", "b"))
    return replace(made, mean=torch.zeros(1), std=torch.ones(1))


def residual(**more) -> Backbone:
    options = {"depth": 3, "width": 6, "norm": "none", "bias": False, "activation": "tanh"}
    return build_backbone("residual_mlp", (1, 4, 4), **options | more).double()


class Maps(nn.Module):
    """Two convolutional blocks with a skip, and batch norms whose statistics are not those of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        parts = [nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh()) for _ in range(2)]
        self.blocks = nn.ModuleList(Skipping(part) for part in parts)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.stem(images)
        for block in self.blocks:
            maps = block(maps)
        return maps


class Skipping(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value + self.branch(value)


def test_of_maps_it_is_of_the_average_by_a_shift_of_all_positions(images) -> None:
    torch.manual_seed(0)
    backbone = Backbone(Maps(), (1, 4, 4), name="maps").double().eval()
    (row,) = rows_of_blocks(backbone, images.train.images[:3].double())
    assert [call.name for call in row] == ["network.blocks.0", "network.blocks.1"]
    for call in row:
        columns = []
        for channel in range(3):
            step = torch.zeros(3, 1, 1, dtype=torch.float64)
            step[channel] = 1e-6
            with torch.no_grad():
                up, down = (call.module.branch(call.value + sign * step).mean((2, 3)) for sign in (1, -1))
            columns.append((up - down) / 2e-6)
        torch.testing.assert_close(call.jacobians(), torch.stack(columns, -1), rtol=1e-6, atol=1e-8)


def test_of_a_vision_transformer_it_is_of_the_class_token(images) -> None:
    small = {"patch_size": 2, "embed_dim": 8, "depth": 2, "num_heads": 2, "proj_drop_rate": 0.5}
    backbone = build_backbone("timm", (1, 4, 4), model="vit_tiny_patch16_224", kwargs=small).double().eval()
    (row,) = rows_of_blocks(backbone, images.train.images[:2].double())
    assert len(row) == 2 and row[0].value.shape == (2, 5, 8)
    for call in row:
        torch.testing.assert_close(call.jacobians(), block_jacobian(call.module, call.value, token=0))
        torch.testing.assert_close(call.rows(call.output), call.output[:, 0])


def test_a_run_records_what_the_functions_say(images) -> None:
    backbone = residual()
    backbone.train()
    at = {layer.layer: layer for layer in measure_backbone(backbone, images, settings=ASKED).layers}
    assert all(module.training for module in backbone.modules())
    blocks, rho = list(backbone.network.blocks), backbone.network.rho[0]
    with torch.no_grad():
        rows = backbone.network.embedding(images.train.images[[0, 3, 6, 9]].double().flatten(1))
    stack = stack_alignment([lambda x, own=own: own(x, rho) for own in blocks], rows, 3, token=None)
    absolute = stack_alignment([lambda x, own=own: own(x, rho) for own in blocks], rows, 3, token=None, absolute=True)
    aligned = stack_alignment([lambda x, own=own: own(x, rho) for own in blocks], rows, 2, token=None).alignment
    for one in range(3):
        values = at[f"network.blocks.{one}"].values
        others = [other for other in range(3) if other != one]
        for other in others:
            for name, found in (("coupling", stack), ("coupling_abs", absolute)):
                key = f"{name}/with=network.blocks.{other}/post"
                assert float(values[key]) == pytest.approx(float(found.couplings[one, other]), rel=1e-9)
        assert float(values["coupling"]) == pytest.approx(float(stack.couplings[one, others].mean()), rel=1e-9)
        for name, found in (
            ("ra3_rank", aligned.rank),
            ("ra3_beyond", aligned.beyond),
            ("ra4_largest", aligned.largest),
        ):
            assert float(values[name]) == pytest.approx(float(found[:, one].mean()), rel=1e-9), name
        assert ("line_shape_score" in values) == (one == 2) and "test_ra3_rank" not in values
    left_right = [float(at[f"network.blocks.{one}"].values["ra2_left_right"]) for one in range(3)]
    assert sum(left_right) / 3 == pytest.approx(float(aligned.left_right.mean()), rel=1e-9)
    last = at["network.blocks.2"].values
    assert float(last["line_shape_score"]) == pytest.approx(float(aligned.line), rel=1e-9)
    assert float(last["ra1_spacing"]) == pytest.approx(float(aligned.spacing), rel=1e-9)


def test_the_identity_is_taken_off_where_a_block_adds_its_input(images) -> None:
    rows = images.train.images[:2].double()
    after = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.1, batch_first=True)
    plain = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    for backbone, adds in ((residual(), True), (residual(skip=False), False), (residual(leak=2.0), True)):
        (row,) = rows_of_blocks(backbone.eval(), rows)
        assert [call.adds_its_input() for call in row] == [adds] * 3
    call = row[0]
    for module, value, adds in ((after.eval(), torch.randn(2, 3, 8), True), (plain, torch.randn(2, 8), False)):
        layout = replace(call.layout, channel=value.ndim - 1, ndim=value.ndim)
        other = replace(call, module=module, value=value, others=(), named={}, layout=layout)
        assert other.adds_its_input() == adds


@pytest.mark.parametrize("leak", [0.0, 2.0])
def test_a_norm_after_the_sum_is_no_part_of_the_branch(images, leak: float) -> None:
    backbone = residual(norm="none" if leak else "layer", leak=leak).eval()
    (row,) = rows_of_blocks(backbone, images.train.images[:2].double())
    for call in row:
        slopes = 1 - call.value.tanh().square()
        linear = slopes[:, None] * call.module.outer.weight.detach()
        expected = (linear - leak * torch.eye(6)) / 3 if leak else linear
        torch.testing.assert_close(call.jacobians(), expected)


def test_rows_are_of_blocks_of_one_shape_that_follow_one_another() -> None:
    assert sizes_of_rows(residual(depth=4)) == [(4, 6)] and sizes_of_rows(residual(depth=1)) == []
    assert sizes_of_rows(build_backbone("mlp", (1, 4, 4), hidden=[6, 6, 6, 5, 5, 4])) == [(2, 6)]
    assert sizes_of_rows(build_backbone("resnet20", (1, 8, 8))) == [(3, 16), (2, 32), (2, 64)]


def test_what_is_undefined_says_why(images) -> None:
    backbone = residual()
    with torch.no_grad():
        for block in backbone.network.blocks:
            block.outer.weight.zero_()
    *_, last = measure_backbone(backbone, images, settings=ASKED).layers
    for name, why in (("coupling", "no pair of blocks"), ("ra3_rank", "does not depend"), ("ra1_spacing", "not move")):
        assert last.values[name].isnan() and why in last.reasons[name]


def test_jacobians_that_are_not_finite_give_no_number() -> None:
    stack = torch.eye(3).expand(2, 1, 3, 3).clone()
    stack[0, 0, 1, 2] = torch.inf
    broken, whole = (BlockOfStack(BlockStack(stack, torch.zeros(1, 3, 3), 2, 2), at) for at in (0, 1))
    for metric in (jacobians.ra2_left_right, jacobians.ra3_rank, jacobians.ra3_beyond, jacobians.ra4_largest):
        assert metric(broken).isnan() and metric(whole).isfinite()
    assert jacobians.coupling(broken).isnan()


def test_costs_are_those_of_the_jacobians_and_their_decompositions() -> None:
    widths = {("a", "post"): 6}
    found = [family_bytes(widths, 2, ASKED, stacks=stacks)["jacobians"] for stacks in ([], [(3, 6), (2, 4)])]
    assert found == [0, 3 * 8 * 4 * (3 * 36 + 2 * 16)]
    assert told([(3, 6), (2, 4)], ASKED) == (
        "Jacobians of 3 blocks of width 6 and 2 blocks of width 4 at 4 images: 6 and 4 backward passes of each block"
    )
