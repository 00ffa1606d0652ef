import pytest
import pytorch_lightning as pl
import torch

from pipeline.data import ResidentLoader, Rounds, Split, load_images


@pytest.fixture(scope="module")
def data():
    return load_images("digits", classes=[0, 1], samples_per_class=25)


def loader(data, batch_size=8, **options) -> ResidentLoader:
    return ResidentLoader(data.train, batch_size, **{"seed": 0, "standardise": data.standardise, **options})


def batches(resident, epoch=0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    resident.set_epoch(epoch)
    return list(resident)


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_an_epoch_shows_every_image_once_with_its_label(data):
    images, labels = (torch.cat(parts) for parts in zip(*batches(loader(data)), strict=True))
    expected = torch.cat([data.standardise(data.train.images).flatten(1), data.train.labels[:, None]], dim=1)
    shown = torch.cat([images.flatten(1), labels[:, None]], dim=1)
    assert sorted(shown.tolist()) == sorted(expected.tolist())
    assert images.dtype == torch.float32 and labels.dtype == torch.int64


def test_batches_hold_the_labels_that_training_is_told(data):
    given = 1 - data.train.labels
    split = Split(data.train.images, data.train.labels, given=given)
    made = ResidentLoader(split, 8, seed=3, standardise=data.standardise, shuffle=False)
    assert torch.equal(torch.cat([labels for _, labels in made]), given)


def test_a_text_gives_tokens_and_a_label_for_each_position(data):
    tokens = torch.arange(12).view(4, 3)
    made = ResidentLoader(Split(tokens, tokens + 1), 3, seed=0, standardise=data.standardise, shuffle=False)
    found = list(made)
    assert [batch.shape for batch, _ in found] == [(3, 3), (1, 3)] and found[0][0].dtype == torch.int64
    assert torch.equal(torch.cat([labels for _, labels in found]), tokens + 1)


def test_without_shuffling_the_splits_order_is_kept(data):
    labels = torch.cat([label for _, label in batches(loader(data, shuffle=False), epoch=3)])
    assert torch.equal(labels, data.train.labels)


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [8] * 6 + [2]), (True, [8] * 6)])
def test_the_length_is_the_number_of_batches(data, drop_last, sizes):
    resident = loader(data, drop_last=drop_last)
    assert [len(labels) for _, labels in resident] == sizes and len(resident) == len(sizes)


def test_order_and_augmentation_are_functions_of_seed_and_epoch(data):
    options = {"augment": "crop_flip", "padding": 1}
    reference = batches(loader(data, **options), epoch=5)
    assert same(batches(loader(data, **options), epoch=5), reference)
    assert not same(batches(loader(data, **options), epoch=6), reference)
    assert not same(batches(loader(data, **options, seed=1), epoch=5), reference)


def test_augmentation_does_not_depend_on_the_batch_size(data):
    def shown(batch_size):
        return torch.cat([images for images, _ in batches(loader(data, batch_size, augment="crop_flip"))])

    assert torch.equal(shown(8), shown(50))


def test_the_global_generator_is_neither_read_nor_moved(data):
    before = torch.get_rng_state()
    batches(loader(data, augment="crop_flip"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_position_continues_inside_the_epoch_and_only_once(data):
    whole = batches(loader(data, augment="crop"), epoch=2)
    interrupted = loader(data, augment="crop")
    interrupted.set_epoch(2)
    iterator = iter(interrupted)
    for _ in range(3):
        next(iterator)
    state = interrupted.state_dict()
    resumed = loader(data, augment="crop")
    resumed.load_state_dict(state)
    assert state == {"position": 3}
    assert same(batches(resumed, epoch=2), whole[3:])
    assert same(batches(resumed, epoch=2), whole)


def test_the_epoch_may_be_set_after_the_iterator_is_made(data):
    resident = loader(data)
    iterator = iter(resident)
    resident.sampler.set_epoch(4)
    assert same(list(iterator), batches(loader(data), epoch=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 is out of range"),
        ({"batch_size": 51, "drop_last": True}, "batch_size=51 leaves no batch of 50 images"),
        ({"augment": "mirror"}, r"data\.augment=mirror is unknown"),
    ],
)
def test_bad_options_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        loader(data, **options)


def test_an_empty_split_is_refused(data):
    empty = Split(data.train.images[:0], data.train.labels[:0])
    with pytest.raises(ValueError, match="leaves no batch of 0 images"):
        ResidentLoader(empty, 8, seed=0, standardise=data.standardise)


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2, dtype=torch.float32))
        torch.nn.init.zeros_(self.net[1].weight)
        torch.nn.init.zeros_(self.net[1].bias)
        self.seen: list[tuple[int, torch.Tensor]] = []

    def training_step(self, batch, index):
        images, labels = batch
        self.seen.append((self.current_epoch, images))
        return torch.nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class KeepAll(pl.Callback):
    def __init__(self, folder) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, *_) -> None:
        trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")


def fit(data, folder, ckpt_path=None, kind=Classifier, by=lambda batches: batches) -> Classifier:
    model = kind()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=3, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[KeepAll(folder)], enable_checkpointing=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(model, by(loader(data, batch_size=10, augment="crop")), ckpt_path=ckpt_path, weights_only=True)
    return model


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A run of three epochs of five batches, and the folder with its checkpoint after every batch."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return fit(data, folder), folder


@pytest.mark.parametrize("step", [1, 4, 5, 8, 10, 14])
def test_a_lightning_run_resumed_at_any_step_is_bit_identical(undisturbed, data, tmp_path, step):
    whole, folder = undisturbed
    resumed = fit(data, tmp_path, folder / f"step={step}.ckpt")
    assert len(whole.seen) == 15 and len(resumed.seen) == 15 - step
    for (epoch, images), (epoch_again, images_again) in zip(whole.seen[step:], resumed.seen, strict=True):
        assert epoch == epoch_again and torch.equal(images, images_again)
    assert torch.equal(whole.net[1].weight, resumed.net[1].weight)


class InRounds(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batches, index):
        for batch in batches:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            super().training_step(batch, index).backward()
            optimizer.step()


@pytest.fixture(scope="module")
def undisturbed_in_rounds(data, tmp_path_factory):
    """The same, its five batches in rounds of 2, 2 and 1."""
    folder = tmp_path_factory.mktemp("undisturbed in rounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.data.loader.ROUND", 2)
        return fit(data, folder, kind=InRounds, by=Rounds), folder


@pytest.mark.parametrize("step", [2, 4, 5, 7, 10, 12])
def test_a_run_in_rounds_is_the_one_without_also_when_resumed_after_any_round(
    undisturbed, undisturbed_in_rounds, data, tmp_path, monkeypatch, step
):
    monkeypatch.setattr("pipeline.data.loader.ROUND", 2)
    one_by_one, (in_rounds, folder) = undisturbed[0], undisturbed_in_rounds
    resumed = fit(data, tmp_path, folder / f"step={step}.ckpt", kind=InRounds, by=Rounds)
    assert len(in_rounds.seen) == len(one_by_one.seen) == 15 and len(resumed.seen) == 15 - step
    for model in (in_rounds, resumed):
        for (epoch, images), (epoch_again, images_again) in zip(one_by_one.seen[::-1], model.seen[::-1], strict=False):
            assert epoch == epoch_again and torch.equal(images, images_again)
        assert torch.equal(one_by_one.net[1].weight, model.net[1].weight)


def test_rounds_tell_how_many_there_are_and_where_they_stand(data):
    batches = loader(data, batch_size=3)
    rounds = Rounds(batches)
    assert len(batches) == 17 and len(rounds) == 2 and rounds.batch_length(16) == 2
    first, second = (list(batch_round) for batch_round in rounds)
    assert [len(first), len(second)] == [10, 7] and rounds.position == 17
    for found, expected in zip(first + second, batches, strict=True):
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
