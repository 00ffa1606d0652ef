"""Sections of the configuration, composed of what all choices share and what each one owns."""

import pickle
from dataclasses import dataclass, fields

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError

from pipeline.runtime.errors import ConfigError
from pipeline.runtime.sections import composed, own_settings, owners_of
from pipeline.runtime.settings import knob


@dataclass
class Shared:
    """What is baked."""

    name: str = knob("bread", "which")

    @property
    def hot(self) -> bool:
        return True


@dataclass(frozen=True)
class Bread:
    salt: float = knob(0.02, "share of salt", gt=0, lt=1)
    seeds: list[str] = knob(["poppy"], "strewn on it")


@dataclass(frozen=True)
class Cake:
    sugar: int = knob(200, "grams", ge=1)
    salt: float = knob(0.02, "a pinch", gt=0, lt=1)

    def __post_init__(self) -> None:
        if self.sugar == 999:
            raise ValueError("food.sugar=999 is too sweet; allowed: less.")


OWNERS = {"bread": Bread, "cake": Cake, "water": None}
Food = composed("Food", Shared, OWNERS, section="food", module=__name__)


def test_a_section_has_what_all_share_and_then_what_each_choice_owns():
    assert [entry.name for entry in fields(Food)] == ["name", "salt", "seeds", "sugar"]
    assert Food().seeds == ["poppy"] and Food().seeds is not Food().seeds
    assert Food.__doc__ == "What is baked." and isinstance(Food(), Shared) and Food().hot
    assert pickle.loads(pickle.dumps(Food(sugar=3))) == Food(sugar=3)


def test_a_field_says_whose_it_is_and_keeps_its_limits():
    entries = {entry.name: entry for entry in fields(Food)}
    assert owners_of(entries["name"]) == () and owners_of(entries["salt"]) == ("bread", "cake")
    assert entries["sugar"].metadata["help"] == "grams, for food=cake"
    assert entries["salt"].metadata["help"] == "share of salt; a pinch, for food=bread|cake"
    assert entries["sugar"].metadata["ge"] == 1


def test_omegaconf_takes_a_section_as_a_schema():
    schema = OmegaConf.structured(Food)
    assert OmegaConf.to_object(OmegaConf.merge(schema, {"sugar": "7"})) == Food(sugar=7)
    with pytest.raises(ConfigKeyError):
        OmegaConf.merge(schema, {"pepper": 1})


def own(name: str, kind: type, default: object, **limits):
    return dataclass(type(name.title(), (), {"__annotations__": {name: kind}, name: knob(default, "x", **limits)}))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (own("salt", float, 0.1, gt=0, lt=1), r"food=bread\|cake \(float, default 0\.02\) and to food=other .* 0\.1\)"),
        (own("salt", int, 0.02, gt=0, lt=1), r"food=other \(int, default 0\.02\): rename one"),
        (own("salt", float, 0.02, gt=0), r"or give both the same type, default and limits\.$"),
        (own("name", str, "x"), r"food\.name belongs to food=other, but the name is taken by what all choices"),
        (own("hot", bool, True), r"food\.hot belongs to food=other, but the name is taken"),
        (dataclass(type("Bare", (), {"__annotations__": {"bare": int}, "bare": 3})), r"Bare\.bare says nothing about"),
    ],
)
def test_names_that_clash_and_fields_without_a_meaning_are_refused(other, message):
    with pytest.raises(TypeError, match=message) as error:
        composed("Clash", Shared, OWNERS | {"other": other}, section="food", module=__name__)
    assert "\n" not in str(error.value)


def test_a_choice_gets_its_own_settings_and_defaults_for_what_is_not_given():
    assert own_settings("food", "cake", OWNERS, {"sugar": 5, "seeds": ("poppy",)}) == Cake(sugar=5)
    assert own_settings("food", "water", OWNERS, {"sugar": 200}) is None


@pytest.mark.parametrize(
    ("choice", "values", "message"),
    [
        (
            "water",
            {"seeds": []},
            r"food\.seeds=\[\] belongs to food=bread, but food=water is chosen; allowed: food\.see",
        ),
        (
            "water",
            {"salt": 0.5},
            r"belongs to food=bread\|cake, .*; allowed: food\.salt=0\.02, or food=bread or food=c",
        ),
        (
            "cake",
            {"suger": 3},
            r"food\.suger=3 is not a known setting \(did you mean sugar\?\); allowed for food=cake: s",
        ),
        ("water", {"ice": True}, r"food\.ice=true is not a known setting; allowed for food=water: none of its own\."),
        ("cake", {"sugar": 0}, r"food\.sugar=0 is out of range; allowed: an integer >= 1\."),
        ("cake", {"sugar": 999}, r"food\.sugar=999 is too sweet"),
    ],
)
def test_settings_of_others_unknown_ones_and_bad_values_are_refused_in_one_sentence(choice, values, message):
    with pytest.raises(ValueError, match=message) as error:
        own_settings("food", choice, OWNERS, values)
    assert isinstance(error.value, ConfigError) or "too sweet" in message
