"""A leaky network on a teacher's outputs: what is recorded is the objective, and wrong settings are refused."""

import pytest
from hydra import compose, initialize_config_dir

from pipeline.config import conf_folder
from pipeline.config.messages import register
from pipeline.runs.checking import checked
from pipeline.runs.execution import execute
from pipeline.runs.inputs import prepare
from pipeline.runtime.errors import ConfigError
from pipeline.storage.record import read_record

SMALL = ("experiment=leaky", "backbone.depth=3", "backbone.leak=2", "backbone.init_scale=2.8", "backbone.width=6")
SMALL += ("backbone.epochs=40", "optimizer.iterations=60", "trainer.threads=1", "record.figures=false")


def config(*more: str):
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        return checked(compose("main", [*SMALL, *more]))


def test_the_objective_falls_to_a_nearly_stationary_point(tmp_path) -> None:
    made = config()
    execute(made, prepare(made), tmp_path)
    record = read_record(tmp_path)
    of = {name: record[record.metric == name].value.tolist() for name in ("objective", "fit", "penalty", "test_fit")}
    assert len(of["objective"]) == 3 and of["objective"][0] > of["objective"][1] > of["objective"][2]
    assert of["objective"] == pytest.approx([sum(it) for it in zip(of["fit"], of["penalty"], strict=True)])
    assert of["fit"][-1] < 0.5 * of["fit"][0]
    residual = record[record.metric == "stationarity_residual"].value.tolist()
    assert residual[-1] < residual[0]
    rank = record[(record.metric == "estimated_rank") & (record.step == record.step.max())].value
    assert len(rank) == 3 and rank.notna().all()


def test_the_same_settings_record_the_same(tmp_path) -> None:
    made = config("backbone.epochs=5", "optimizer.iterations=5")
    for name in ("one", "two"):
        execute(made, prepare(made), tmp_path / name)
    one, two = (read_record(tmp_path / name) for name in ("one", "two"))
    assert len(one) and one.equals(two)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("backbone.width=4",), "backbone.width=4 is less than data.dim=5"),
        (("data.samples=5000",), "data.samples=5000 is out of range"),
        (("trainer.precision=float32", "measure.families=[core]"), "protocol=leaky needs a leaky network"),
        (("backbone.norm=layer", "measure.families=[core]"), "protocol=leaky needs a leaky network"),
    ],
)
def test_what_it_cannot_fit_is_refused_in_a_sentence(more: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        prepare(config(*more))
