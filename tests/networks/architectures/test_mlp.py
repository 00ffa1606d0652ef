import torch

from pipeline.networks import build_backbone

DIGIT = (1, 8, 8)


def images(shape, count=3) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_the_mlp_is_linear_and_relu_with_biases():
    backbone = build_backbone("mlp", DIGIT, hidden=[5, 3])
    first, second = backbone.get_submodule("network.hidden1.0"), backbone.get_submodule("network.hidden2.0")
    batch = images(DIGIT)
    expected = ((batch.flatten(1) @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias).relu()
    torch.testing.assert_close(backbone(batch), expected)
    assert backbone.blocks == ("network.hidden1", "network.hidden2") and backbone.num_features == 3
