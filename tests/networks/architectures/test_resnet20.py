import torch
from torch import nn

from pipeline.networks import build_backbone

CIFAR = (3, 32, 32)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_resnet20_has_the_parameters_of_the_paper_plus_its_projection_shortcuts():
    backbone = build_backbone("resnet20", CIFAR)
    convolutions = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 19  # and the linear classifier makes 20
    with_classifier = count_parameters(backbone) + 64 * 10 + 10
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert with_classifier == 269_722 + projections  # 0.27 M, He et al. 2016, table 6


def test_a_linear_tail_takes_the_average_of_the_maps():
    plain, tailed = (build_backbone("resnet20", (1, 8, 8), linear_tail=count).eval() for count in (0, 2))
    images = torch.randn(2, 1, 8, 8)
    weights = [tailed.network.get_submodule(f"linear{number}")[0].weight for number in (1, 2)]
    assert torch.allclose(tailed(images), plain(images) @ weights[0].mT @ weights[1].mT, atol=1e-5)
    assert tailed.blocks[-2:] == ("network.linear1", "network.linear2")
