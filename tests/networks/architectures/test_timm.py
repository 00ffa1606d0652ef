import pytest

from pipeline.networks import build_backbone

DIGIT, CIFAR = (1, 8, 8), (3, 32, 32)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "convnext_atto"])
def test_images_too_small_for_a_model_are_refused_in_one_sentence(model):
    with pytest.raises(ValueError, match=rf"backbone\.model={model} cannot take images of shape \(1, 8, 8\)") as error:
        build_backbone("timm", DIGIT, model=model)
    assert "data.image_size" in str(error.value) and "\n" not in str(error.value)


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network\nmore")

    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(ValueError, match=r"weights of resnet18 cannot be loaded \(no network\); allowed") as error:
        build_backbone("timm", CIFAR, model="resnet18", pretrained=True)
    assert "\n" not in str(error.value)
