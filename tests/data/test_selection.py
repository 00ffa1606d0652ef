from itertools import pairwise

import pytest
import torch

from pipeline.data import DataError
from pipeline.data.selection import choose_rows, merged_classes, relabel, resolve_classes, split_off_test

ANIMALS = ("ant", "bee", "cat", "dog")


def test_classes_by_name_by_index_and_mixed_keep_the_given_order():
    assert resolve_classes(["dog", 0], ANIMALS) == (3, 0)
    assert resolve_classes([1, "cat", "ant"], ANIMALS) == (1, 2, 0)


def test_no_class_list_means_all_classes():
    assert resolve_classes(None, ANIMALS) == (0, 1, 2, 3)
    assert resolve_classes(None, ("1", "2", "10")) == (0, 1, 2)


def test_a_number_in_quotes_is_a_name_first_and_an_index_second():
    assert resolve_classes(["3", 3], ("3", "x", "y", "z")) == (0, 3)
    assert resolve_classes(["3", "0"], ANIMALS) == (3, 0)


NUMBERS = ("1", "10", "2", "3")


@pytest.mark.parametrize("classes", [[1, 2], ["1", "2"], [1.0, "02"], ["1", 2]])
def test_where_all_names_are_numbers_an_entry_is_the_class_of_that_name(classes):
    assert resolve_classes(classes, NUMBERS) == (0, 2)
    assert resolve_classes(classes, ("00", "01", "02", "10")) == (1, 2)


@pytest.mark.parametrize("classes", [[1, 2], ["1", "2"], ["1", 2]])
def test_where_the_names_are_the_indices_both_mean_the_same(classes):
    assert resolve_classes(classes, tuple("0123456789")) == (1, 2)
    with pytest.raises(DataError, match=r"99 is no class.*allowed: an index 0\.\.9 or a name of 0, 1"):
        resolve_classes([1, 99], tuple("0123456789"))


def test_names_that_are_the_same_number_are_told_apart_by_their_spelling():
    assert resolve_classes([1, "01"], ("01", "1", "2")) == (1, 0)
    assert resolve_classes([-1, 1, 0.5], ("-1", "0.50", "1")) == (0, 2, 1)
    with pytest.raises(DataError, match=r"1 is no class.*whose names are numbers; allowed: a name of 01, 001, 2\."):
        resolve_classes([1, 2], ("01", "001", "2"))


@pytest.mark.parametrize("entry", [0, 4, -1, True, 1.5, "x", None])
def test_where_all_names_are_numbers_nothing_else_is_an_index(entry):
    with pytest.raises(
        DataError, match=rf"data\.classes: {entry!r} is no class of .*; allowed: a name of 1, 10, 2, 3\."
    ):
        resolve_classes([entry, 1], NUMBERS)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cta", "dog"], r"'cta' is no class.*did you mean 'cat'.*ant, bee, cat, dog"),
        (["CAT", "dog"], r"did you mean 'cat'"),
        ([0, 4], r"4 is no class.*0\.\.3"),
        ([0, -1], r"-1 is no class.*0\.\.3"),
        ([0, True], r"True is no class"),
        ([0, 1.0], r"1\.0 is no class"),
        (["cat", 2], r"\[cat, 2\] names class 'cat' twice"),
        (["cat"], r"\[cat\] has 1 class; allowed: two or more"),
        ([], r"\[\] has 0 class"),
        ("cat", r"data\.classes=cat is not a list"),
        (7, r"data\.classes=7 is not a list"),
    ],
)
def test_a_bad_class_list_is_refused_in_one_sentence(classes, message):
    with pytest.raises(DataError, match=message) as error:
        resolve_classes(classes, ANIMALS)
    assert str(error.value).startswith("data.classes") and "\n" not in str(error.value)


def labels_with_counts(*counts: int) -> torch.Tensor:
    labels = torch.cat([torch.full((count,), index) for index, count in enumerate(counts)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]


def test_the_test_split_is_a_partition_with_the_same_share_of_every_class():
    labels = labels_with_counts(100, 50, 10)
    train, test = split_off_test(labels, ANIMALS[:3], 0.2)
    assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(160))
    assert labels[test].bincount().tolist() == [20, 10, 2]


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_every_class_is_in_both_splits_whatever_the_fraction(fraction):
    labels = labels_with_counts(5, 2)
    for rows in split_off_test(labels, ANIMALS[:2], fraction):
        assert set(labels[rows].tolist()) == {0, 1}


def test_a_class_of_one_image_cannot_be_split():
    with pytest.raises(DataError, match=r"data\.test_fraction=0\.2 .*'bee'.*1 image"):
        split_off_test(labels_with_counts(5, 1), ANIMALS[:2], 0.2)


def test_a_balanced_subset_has_n_of_each_chosen_class_and_nothing_else():
    labels = labels_with_counts(30, 20, 25, 9)
    rows = choose_rows(labels, (3, 1), ANIMALS, 7, seed=0)
    assert labels[rows].bincount(minlength=4).tolist() == [0, 7, 0, 7]
    assert rows.unique().numel() == 14


def test_smaller_subsets_are_contained_in_larger_ones():
    labels = labels_with_counts(30, 20)
    subsets = [set(choose_rows(labels, (0, 1), ANIMALS, n, seed=3).tolist()) for n in (1, 5, 12, 20)]
    assert all(small < large for small, large in pairwise(subsets))


def test_the_subset_of_a_class_depends_on_the_seed_and_not_on_the_other_classes():
    labels = labels_with_counts(40, 40, 40)

    def of_class_one(chosen, seed):
        rows = choose_rows(labels, chosen, ANIMALS, 10, seed)
        return set(rows[labels[rows] == 1].tolist())

    assert of_class_one((0, 1), 5) == of_class_one((2, 1, 0), 5)
    assert of_class_one((0, 1), 5) != of_class_one((0, 1), 6)


def test_asking_for_more_images_than_a_class_has_names_the_class_and_the_number():
    with pytest.raises(DataError, match=r"data\.samples_per_class=10 .*'dog'.*allowed: 1\.\.9\."):
        choose_rows(labels_with_counts(30, 20, 25, 9), (0, 3), ANIMALS, 10, seed=0)


def test_labels_become_positions_in_the_class_list():
    assert relabel(torch.tensor([3, 1, 1, 3]), (3, 1), 4).tolist() == [0, 1, 1, 0]


def test_a_list_within_the_class_list_makes_one_label_of_several_classes():
    members, names = merged_classes([["dog", 0], "bee"], ANIMALS)
    assert members == ((3, 0), (1,)) and names == ("dog+ant", "bee")
    assert relabel(torch.tensor([0, 1, 2, 3]), members, 4).tolist() == [0, 1, -1, 0]
    assert merged_classes(None, ANIMALS) == (((0,), (1,), (2,), (3,)), ANIMALS)


@pytest.mark.parametrize(
    ("classes", "message"),
    [([["ant", "bee"]], "has 1 class"), ([["ant", "bee"], 0], "names class 'ant' twice"), ([[], 0], "an empty list")],
)
def test_merged_classes_are_two_or_more_and_disjoint(classes, message):
    with pytest.raises(DataError, match=message):
        merged_classes(classes, ANIMALS)


def test_every_class_may_have_a_count_of_its_own():
    labels = torch.arange(3).repeat(10)
    rows = choose_rows(labels, (0, 2), ANIMALS, (4, 2), seed=0)
    assert labels[rows].bincount().tolist() == [4, 0, 2]
    assert set(rows.tolist()) <= set(choose_rows(labels, (0, 2), ANIMALS, 5, seed=0).tolist())
