"""The file is the registration: one new file makes an objective that the whole pipeline runs with."""

import json
import subprocess

import pandas as pd
import pytest
from overlay import Overlay

LOGISTIC = '''
"""One logistic regression per class."""

from torch import Tensor
from torch.nn import functional as F

from pipeline.dufm.objectives import Objective, Promise


class Logistic(Objective):
    """1/N sum_ik log(1 + exp(-+z_ik)), minus where k is the label."""

    title = "one logistic regression per class"
    collapse = (
        Promise("dnc1", lambda layer, tap, depth: True),
        Promise("cdnv", lambda layer, tap, depth: layer == depth, threshold=0.5),
    )

    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.softplus((1 - 2 * targets) * outputs).sum(dim=(-2, -1)) / targets.shape[0]

    def gradient_(self, outputs: Tensor, targets: Tensor) -> None:
        outputs.sigmoid_().sub_(targets).div_(targets.shape[0])


OBJECTIVE = Logistic()
'''
MACHINERY = '"""No objective."""\n'
TINY = ["logger=none", "record.figures=false", "trainer.accelerator=cpu", "trainer.threads=1"]
TINY += ["head.depth=2", "head.width=6"]
JOINT = ["protocol=end_to_end", "protocol.regularization=dufm", "data=digits", "backbone.hidden=[8]"]


@pytest.fixture(scope="module")
def overlay(tmp_path_factory) -> Overlay:
    """A copy of the package with one objective more."""
    objectives = "pipeline/dufm/objectives"
    files = {f"{objectives}/logistic.py": LOGISTIC, f"{objectives}/_machinery.py": MACHINERY}
    return Overlay(tmp_path_factory.mktemp("overlay"), files)


def run(overlay: Overlay, *arguments: str) -> subprocess.CompletedProcess[str]:
    return overlay.dnc(*TINY, *arguments, check=False)


def test_it_descends_is_recorded_and_judged_by_what_it_calls_collapse(overlay):
    done = run(
        overlay, "protocol=dufm", "head.loss=logistic", "protocol.num_classes=3", "protocol.samples_per_class=4",
        "protocol.num_features=5", "descent.steps=30", "descent.records_per_decade=2",
        "verdict.thresholds={cdnv: 0.25}", "hydra.run.dir=dufm",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the kernel does not know one logistic regression per class" in done.stdout + done.stderr
    summary = json.loads((overlay.folder / "dufm/summary.json").read_text())
    verdict, loss = summary["verdict"], summary["loss"]
    assert list(verdict["holds_from_layer"]) == ["dnc1", "cdnv"] and verdict["thresholds"]["cdnv"] == 0.25
    assert [place["layer"] for place in verdict["layers"] if place["cdnv"]["counts"]] == [2, 2]
    assert loss["optimum"] is None and loss["relative_gap"] is None and summary["problem"]["loss"] == "logistic"
    assert verdict["optimum"] == "no closed-form value: none is known for one logistic regression per class"
    record = pd.read_csv(overlay.folder / "dufm/record.csv")
    losses = record[(record.metric == "loss") & (record.seed == 0)].sort_values("step").value
    assert losses.iloc[-1] < losses.iloc[0]


@pytest.mark.parametrize("loss", ["logistic", "cross_entropy", "mse"])
def test_joint_training_on_all_samples_at_once_minimises_the_number_that_is_recorded_of_the_head(overlay, loss):
    folder = f"joint_{loss}"
    done = run(
        overlay, *JOINT, f"head.loss={loss}", "backbone.epochs=2", "backbone.batch_size=1000", f"hydra.run.dir={folder}"
    )
    assert done.returncode == 0, done.stderr
    record = pd.read_csv(overlay.folder / folder / "record.csv")
    trained = record[(record.stage == "backbone") & (record.metric == "train_loss")].set_index("step").value
    head = record[(record.stage == "head") & (record.metric == "loss")].set_index("step").value
    assert list(trained.index) == list(head.index) == [0, 1, 2]
    assert trained.to_numpy() == pytest.approx(head.to_numpy(), rel=1e-5)


def test_it_is_a_choice_and_machinery_beside_it_is_none(overlay):
    done = run(overlay, "protocol=dufm", "head.loss=_machinery")
    assert done.returncode == 2
    assert "head.loss=_machinery is not known; allowed: cross_entropy, logistic, mse" in done.stderr


def test_an_objective_that_its_file_forgets_is_said_to_be_missing(overlay):
    empty = overlay.folder / "pipeline/dufm/objectives/forgotten.py"
    empty.write_text(MACHINERY)
    try:
        code = "from pipeline.dufm.objectives import load_objective; load_objective('forgotten')"
        done = overlay.python("-c", code, check=False)
    finally:
        empty.unlink()
    assert done.returncode and "objectives.forgotten must hold OBJECTIVE, an instance of Objective" in done.stderr
