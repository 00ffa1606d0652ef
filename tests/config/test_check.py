"""Every knob of the schema is held to the limits that stand beside it, whatever knob it is."""

import re
from collections.abc import Iterator
from dataclasses import Field, asdict, fields, is_dataclass

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import MISSING, DictConfig, OmegaConf

from pipeline.config import Config, allowed, choices_of, conf_folder, from_plain, settings
from pipeline.config.messages import register
from pipeline.runtime.errors import ConfigError
from pipeline.runtime.settings import shown


def knobs(node: object, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Key and field of every knob."""
    for entry in fields(node):
        value = getattr(node, entry.name)
        if is_dataclass(value):
            yield from knobs(value, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", entry


KNOBS = dict(knobs(Config()))
BEYOND = {
    "gt": lambda bound: bound,
    "ge": lambda bound: bound - 1,
    "lt": lambda bound: bound,
    "le": lambda bound: bound + 1,
}
LIMITED = [(key, limit) for key, entry in KNOBS.items() for limit in BEYOND if limit in entry.metadata]
CHOSEN = [key for key, entry in KNOBS.items() if choices_of(entry)]


@pytest.fixture(scope="module")
def base() -> DictConfig:
    """What ``conf/`` composes by default, unchecked."""
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        return compose("main")


@pytest.fixture
def refusal(base):
    """Set one knob; the sentence with which the check refuses it."""

    def of(key: str, value: object) -> str:
        config = base.copy()
        OmegaConf.update(config, key, value)
        with pytest.raises(ConfigError) as caught:
            settings(config)
        return str(caught.value)

    return of


UNLIKE = [
    {},
    {"seed": 0, "backbone": {"epochs": 7, "hidden": [3, 4], "kwargs": {"a": {"b": [1]}}}},
    {"descent": {"lr": 1, "momentum": 0}, "head": {"weight_decay": [1, 2.5, 3], "inputs": "free"}},
    {"data": {"classes": None, "flip": {"rate": 0.5}}, "verdict": {"thresholds": {"dnc1": 1}}},
    {"head": {"depth": "3", "width": "8"}, "trainer": {"deterministic": "true"}, "descent": {"polish": 1}},
]


@pytest.mark.parametrize("values", UNLIKE, ids=str)
def test_what_equals_the_default_need_not_be_merged_with_it(values, base):
    """Values and their types are those that OmegaConf makes of all of them."""
    plain = OmegaConf.to_container(OmegaConf.merge(base, OmegaConf.create(values)))
    everything = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), plain))
    assert repr(from_plain(plain)) == repr(everything)


def test_a_configuration_can_be_sent_to_another_process(composed):
    config = composed("head.depth=2", "head.weight_decay=[1e-3,2e-3]", "data.classes=[0,3]")
    assert from_plain(asdict(config)) == config


@pytest.mark.parametrize(("key", "limit"), LIMITED)
def test_the_first_value_beyond_a_limit_is_refused_with_key_value_and_what_is_allowed(key, limit, refusal):
    value = BEYOND[limit](KNOBS[key].metadata[limit])
    sentence = refusal(key, [value] if "list" in str(KNOBS[key].type) else value)
    assert sentence.startswith(f"{key}=") and f"allowed: {allowed(KNOBS[key])}" in sentence


@pytest.mark.parametrize("key", CHOSEN)
def test_a_choice_that_is_none_is_refused_and_a_near_one_suggested(key, refusal):
    choice = choices_of(KNOBS[key])[0]
    wrong = [f"{choice}x"] if "list" in str(KNOBS[key].type) else f"{choice}x"
    said = re.escape(f"{key}={shown(wrong)}")
    assert re.match(rf"{said} is not known; allowed: .*{choice}.* \(did you mean ", refusal(key, wrong))
    if isinstance(wrong, list):
        assert refusal(key, []).startswith(f"{key}=[] is empty; allowed: a list of {choice}")


@pytest.mark.parametrize("key", KNOBS)
def test_every_knob_says_what_it_is_and_what_it_may_be(key):
    assert KNOBS[key].metadata["help"] and allowed(KNOBS[key])


def test_what_nobody_gave_is_asked_for(base):
    config = base.copy()
    OmegaConf.update(config, "head.width", MISSING)
    with pytest.raises(ConfigError, match=r"^head\.width=\?\?\? is missing; allowed: a value"):
        settings(config)


def test_classes_of_no_size_are_refused(refusal):
    assert refusal("measure", {"min_samples": 5, "max_samples": 2}) == (
        "measure.max_samples=2 leaves no class; allowed: at least measure.min_samples=5, or null."
    )
