"""What is done to labels and images of any data set: long tails, groups, wrong labels."""

import pytest
import torch

from pipeline.data import DataError, load_images, validate_request
from pipeline.data.options import Flip, draw_groups, flipped, long_tail, mark, member, tail_counts
from pipeline.data.settings import NO_FLIP, DataConfig
from pipeline.storage.stages import fingerprint

NAMES = ("a", "b", "c")
LABELS = torch.arange(3).repeat_interleave(40)


def flip_of(**given) -> Flip:
    return Flip.of({key.rstrip("_"): value for key, value in given.items()})


@pytest.mark.parametrize(
    ("largest", "tau", "counts"),
    [
        (5000, 0.01, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
        (5000, 0.02, [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100]),
        (120, 0.05, [120, 86, 61, 44, 31, 22, 16, 11, 8, 6]),
    ],
)
def test_a_long_tail_falls_by_one_ratio(largest, tau, counts):
    assert tail_counts(largest, tau, 10) == counts  # NETWORK_MEASURES 4.8
    assert long_tail([largest] * 10, tau, None, list(map(str, range(10)))) == counts
    assert tail_counts(5000, 0.005, 10)[-1] == 25


def test_a_long_tail_is_as_large_as_the_classes_allow():
    assert long_tail([50, 200, 10], 0.1, None, NAMES) == [50, 15, 5]
    assert long_tail([200, 200, 3], 0.1, None, NAMES) == [39, 12, 3]  # floor(39 * 0.1 + 1e-9) = 3


@pytest.mark.parametrize(
    ("tau", "largest", "message"),
    [
        (
            0.5,
            60,
            r"data\.samples_per_class=60 with data\.imbalance=0\.5 asks for 60 samples of class 'a', which has 50",
        ),
        (0.01, 50, r"data\.imbalance=0\.01 leaves no sample of class 'c': the largest class has 50; .*0\.02"),
    ],
)
def test_a_long_tail_that_there_is_not_is_refused(tau, largest, message):
    with pytest.raises(DataError, match=message):
        long_tail([50, 50, 50], tau, largest, NAMES)


def test_long_tails_follow_the_class_list_and_leave_the_test_split_as_it_is():
    plain = load_images("digits", classes=[3, 1, 2], samples_per_class=40, seed=2)
    tailed = load_images("digits", classes=[3, 1, 2], samples_per_class=40, imbalance=0.25, seed=2)
    assert tailed.class_counts("train") == {"3": 40, "1": 20, "2": 10}
    assert torch.equal(tailed.test.images, plain.test.images)
    rows = {image.numpy().tobytes() for image in plain.train.images}
    assert all(image.numpy().tobytes() in rows for image in tailed.train.images)
    uncut = load_images("digits", imbalance=0.05).class_counts("train")
    assert list(uncut.values()) == tail_counts(uncut["0"], 0.05, 10)


def test_groups_are_the_asked_share_of_each_class_and_of_both_splits():
    groups = draw_groups(LABELS, NAMES, 0.3, 0, "train")
    assert torch.bincount(LABELS[groups == 1]).tolist() == [12, 12, 12]
    data = load_images("digits", classes=[0, 1], group="invert", group_share=0.25, seed=1)
    plain = load_images("digits", classes=[0, 1], seed=1)
    assert data.groups == ("0", "1")
    for split, before in ((data.train, plain.train), (data.test, plain.test)):
        assert split.groups.double().mean() == pytest.approx(0.25, abs=0.02) and torch.equal(
            split.labels, before.labels
        )
        marked = split.groups == 1
        assert torch.equal(split.images[marked], 255 - before.images[marked])
        assert torch.equal(split.images[~marked], before.images[~marked])


def test_a_patch_is_white_and_a_quarter_wide_and_negation_inverts_numbers():
    images = torch.full((2, 1, 8, 4), 7, dtype=torch.uint8)
    out = mark(images, torch.tensor([0, 1]), "patch")
    assert torch.equal(out[0], images[0]) and (out[1, 0, :2, :1] == 255).all() and (out[1] == 255).sum() == 2
    vectors = load_images("mixture", group="invert", samples_per_class=4, test=3)
    plain = load_images("mixture", samples_per_class=4, test=3)
    assert torch.equal(vectors.test.images.abs(), plain.test.images.abs())
    assert torch.equal(vectors.test.images[vectors.test.groups == 1], -plain.test.images[vectors.test.groups == 1])


def test_a_flip_touches_only_the_class_and_group_that_are_meant():
    groups = torch.arange(120) % 2
    given = flipped(LABELS, groups, flip_of(rate=0.25, group="1", from_="b", to="c"), NAMES, ("0", "1"), 0)
    changed = given != LABELS
    assert changed.sum() == 5 and (LABELS[changed] == 1).all() and (groups[changed] == 1).all()
    assert (given[changed] == 2).all()
    more = flipped(LABELS, groups, flip_of(rate=0.5, group=1, from_="b", to="c"), NAMES, ("0", "1"), 0)
    assert (more != LABELS).sum() == 10 and (more != LABELS)[changed].all()


def test_a_flip_without_a_target_takes_every_other_class():
    given = flipped(LABELS, None, flip_of(rate=1.0), NAMES, (), 0)
    assert (given != LABELS).all()
    for label in range(3):
        assert given[label == LABELS].unique().tolist() == [other for other in range(3) if other != label]


def test_training_is_told_flipped_labels_and_true_ones_stay():
    options = {"classes": [0, 1], "group": "invert", "flip": {"rate": 0.25, "group": 1, "from": 1, "to": 0}}
    data, again = load_images("digits", **options), load_images("digits", **options)
    plain = load_images("digits", classes=[0, 1])
    meant = (data.train.groups == 1) & (data.train.labels == 1)
    assert torch.equal(data.train.labels, plain.train.labels) and torch.equal(data.train.given, again.train.given)
    assert (data.train.given != data.train.labels).sum() == round(0.25 * int(meant.sum()))
    assert data.test.given is None and data.train.targets is data.train.given


def test_random_labels_keep_the_sizes_of_classes_and_nothing_else():
    data = load_images("digits", random_labels=True)
    assert torch.equal(data.train.given.bincount(), data.train.labels.bincount()) and data.test.given is None
    assert (data.train.given == data.train.labels).double().mean() == pytest.approx(0.1, abs=0.03)


def test_options_are_functions_of_the_seed_and_of_one_purpose_each():
    def made(seed):
        return load_images("digits", classes=[0, 1], group="patch", flip={"rate": 0.3}, seed=seed).train

    assert not torch.equal(made(0).groups, made(1).groups) and not torch.equal(made(0).given, made(1).given)
    assert torch.equal(made(0).groups, load_images("digits", classes=[0, 1], group="invert").train.groups)


BAD = [
    ({"imbalance": 0.0}, r"data\.imbalance=0\.0 is out of range; allowed: 0 < imbalance <= 1"),
    ({"imbalance": 1.5}, r"data\.imbalance=1\.5"),
    ({"imbalance": float("nan")}, r"data\.imbalance=nan"),
    ({"group": "inverts"}, r"data\.group=inverts is not known; allowed: invert, patch, or null \(did you mean invert"),
    ({"group_share": 1.0}, r"data\.group_share=1\.0 is out of range"),
    ({"random_labels": 1}, r"data\.random_labels=1"),
    (
        {"random_labels": True, "flip": {"rate": 0.1}},
        r"data\.random_labels=true leaves nothing for data\.flip\.rate=0\.1",
    ),
    (
        {"flip": {"rte": 0.1}},
        r"data\.flip\.rte is not a known key; allowed in data\.flip: rate, group, from, to .*rate\?",
    ),
    ({"flip": {"rate": 1.1}}, r"data\.flip\.rate=1\.1 is out of range; allowed: a number from 0 to 1"),
    ({"flip": {"rate": None}}, r"data\.flip\.rate=None"),
    ({"flip": 0.3}, r"data\.flip=0\.3 is no mapping"),
    ({"flip": {"rate": 0.1, "from": 12}}, r"data\.flip\.from=12 is no class; allowed: a name of 0, 1"),
    ({"flip": {"rate": 0.1, "to": "cat"}}, r"data\.flip\.to=cat is no class"),
    ({"flip": {"rate": 0.1, "from": 1, "to": 1}}, r"data\.flip\.from=1 is data\.flip\.to=1; allowed: another class"),
    (
        {"group": "invert", "flip": {"rate": 0.1, "group": 2}},
        r"data\.flip\.group=2 is no group; allowed: a name of 0, 1",
    ),
    ({"foreign": "digits"}, r"data\.foreign=digits is the data set itself"),
    ({"foreign": "digit"}, r"data\.foreign=digit is not known; allowed: .*did you mean digits"),
    ({"foreign": "mnist"}, r"data\.foreign=mnist: data\.root=null, but data=mnist needs its files"),
    ({"foreign": "mixture"}, r"data\.foreign=mixture holds vectors, and data=digits holds images"),
    ({"foreign_root": "x"}, r"data\.foreign_root=x belongs to data\.foreign, which is null"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_unknown_values_are_refused_beforehand_in_one_sentence(options, message):
    for call in (validate_request, load_images):
        with pytest.raises(DataError, match=message) as error:
            call("digits", **options)
        assert "\n" not in str(error.value)


def test_what_only_loading_shows_is_refused_in_one_sentence():
    with pytest.raises(
        DataError, match=r"data\.flip\.group=1, but there are no groups; allowed: data\.group=invert or"
    ):
        load_images("digits", flip={"rate": 0.1, "group": 1})
    with pytest.raises(DataError, match=r"data\.group=patch does not go with data=cones, which holds vectors"):
        validate_request("cones", group="patch")


def test_a_class_is_told_by_name_or_else_by_index():
    assert member("data.flip.to", 1, ("0+1", "2+3"), "class") == 1
    assert member("data.flip.to", "2+3", ("0+1", "2+3"), "class") == 1
    assert member("data.flip.to", 5, ("3", "5"), "class") == 1
    with pytest.raises(DataError, match=r"data\.flip\.to=0 is no class; allowed: a name of 3, 5"):
        member("data.flip.to", 0, ("3", "5"), "class")


def test_a_rate_of_zero_flips_nothing():
    assert Flip.of(None) is None and Flip.of(NO_FLIP) is None
    assert load_images("digits", flip={"rate": 0}).train.given is None


def test_the_keys_of_results_follow_the_options_and_are_the_old_ones_without_them(composed):
    plain = composed()
    assert not {"imbalance", "group", "flip", "foreign"} & plain.data.relevant.keys()
    keys = {fingerprint(plain, ("data",))}
    for option in ("data.imbalance=0.5", "data.group=patch", "data.flip.rate=0.1", "data.random_labels=true"):
        keys.add(fingerprint(composed(option), ("data",)))
    keys.add(fingerprint(composed("data.foreign=mnist"), ("data",)))
    assert len(keys) == 6
    assert DataConfig(name="digits").request["flip"] == NO_FLIP


def test_the_command_names_the_key_that_is_wrong(run_here):
    for argument, message in (
        (
            "data.flip.rte=1",
            "data.flip.rte is not a known key; allowed in data.flip: rate, group, from, to (did you mean",
        ),
        ("+data.flip.rte=1", "data.flip.rte is not a known key; allowed in data.flip: rate, group, from, to"),
        ("data.flip.rate=2", "data.flip.rate=2 is out of range; allowed: a number from 0 to 1."),
        ("data.group=inverted", "data.group=inverted is not known; allowed: invert, patch"),
        ("data.imbalance=2", "data.imbalance=2.0 is out of range; allowed: a finite number > 0 and <= 1, or null."),
    ):
        code, err, left = run_here(argument)
        assert code == 2 and left == [] and message in err and err.count("\n") == 1, err
