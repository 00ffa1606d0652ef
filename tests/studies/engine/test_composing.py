"""Configurations are those that Hydra composes, down to their text and to the errors."""

import os

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config import conf_folder
from pipeline.config.messages import explain
from pipeline.studies.engine import composing
from pipeline.studies.engine.composing import composed


def by_hydra(task: list[str]):
    return composing._by_hydra(conf_folder(), task)


@pytest.mark.parametrize(
    "task",
    [
        ["experiment=e1"],
        ["experiment=e1", "head.depth=5", "descent.lr=1e-3", "seed=3"],
        ["head.depth=5", "experiment=e1", "head=relu", "head.depth=2", "head.depth=7"],
        ["experiment=e3", "data=digits", "data.classes=[0, 1]", "backbone.hidden=[16,8]", "data.root='a b=c'"],
        ["protocol=dufm", "verdict.thresholds={gini: 1}", "record.figures=false", "data.root=null"],
        ["experiment=e1", "+head.extra=1"],
        ["experiment=e1", "head.width=${head.depth}"],
        ["experiment=e1", "hydra.run.dir=here", "head.width=3"],
    ],
)
def test_it_is_what_hydra_makes_of_the_same_arguments(task):
    for _ in range(2):  # of which the second finds what the first has kept
        config, runtime = composed(task)
        expected, kept = by_hydra(task)
        assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(expected) and runtime == kept
        OmegaConf.update(config, "head.depth", 99)
        runtime["choices"]["head"] = "changed"


def test_what_is_kept_of_a_composition_follows_the_working_folder(tmp_path, monkeypatch):
    composed(["experiment=e1"])
    monkeypatch.chdir(tmp_path)
    assert composed(["experiment=e1"])[1]["cwd"] == os.getcwd()


@pytest.mark.parametrize(
    "wrong", ["head.widht=3", "head=nonsense", "nonsense=3", "head@here=relu", "head.width=1,2", "a b", "~head.depth"]
)
def test_what_hydra_refuses_is_refused_in_its_words(wrong):
    said = []
    for compose in (composed, by_hydra):
        with pytest.raises((HydraException, OmegaConfBaseException)) as error:
            compose(["experiment=e1", "head.depth=2", wrong])
        said.append(explain(error.value))
    assert said[0] == said[1]
