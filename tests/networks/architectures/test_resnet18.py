from torch import nn

from pipeline.networks import build_backbone

CIFAR = (3, 32, 32)


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_resnet18_has_the_parameters_of_torchvisions_but_for_its_stem():
    from torchvision.models import resnet18

    reference = resnet18()
    rest = count_parameters(reference) - count_parameters(reference.fc) - count_parameters(reference.conv1)
    assert count_parameters(build_backbone("resnet18", CIFAR)) == rest + 64 * 3 * 3 * 3
