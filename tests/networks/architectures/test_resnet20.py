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
