"""The file is the registration: one new file makes an objective that the whole pipeline runs with."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import pipeline
from pipeline.config import conf_folder

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
def overlay(tmp_path_factory) -> Path:
    """A copy of the package with one objective more."""
    root = tmp_path_factory.mktemp("overlay")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(pipeline.__file__).parent, root / "pipeline", ignore=ignored)
    shutil.copytree(conf_folder(), root / "conf", dirs_exist_ok=True)
    objectives = root / "pipeline/dufm/objectives"
    (objectives / "logistic.py").write_text(LOGISTIC)
    (objectives / "_machinery.py").write_text(MACHINERY)
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline", *TINY, *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)


def test_it_descends_is_recorded_and_judged_by_what_it_calls_collapse(overlay):
    done = run(
        overlay, "protocol=dufm", "head.loss=logistic", "protocol.num_classes=3", "protocol.samples_per_class=4",
        "protocol.num_features=5", "descent.steps=30", "verdict.thresholds={cdnv: 0.25}", "hydra.run.dir=dufm",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the kernel does not know one logistic regression per class" in done.stdout + done.stderr
    summary = json.loads((overlay / "dufm/summary.json").read_text())
    verdict, loss = summary["verdict"], summary["loss"]
    assert list(verdict["holds_from_layer"]) == ["dnc1", "cdnv"] and verdict["thresholds"]["cdnv"] == 0.25
    assert [place["layer"] for place in verdict["layers"] if place["cdnv"]["counts"]] == [2, 2]
    assert loss["optimum"] is None and loss["relative_gap"] is None and summary["problem"]["loss"] == "logistic"
    assert verdict["optimum"] == "no closed-form value: none is known for one logistic regression per class"
    record = pd.read_csv(overlay / "dufm/record.csv")
    losses = record[(record.metric == "loss") & (record.seed == 0)].sort_values("step").value
    assert losses.iloc[-1] < losses.iloc[0]


@pytest.mark.parametrize("loss", ["logistic", "cross_entropy", "mse"])
def test_joint_training_on_all_samples_at_once_minimises_the_number_that_is_recorded_of_the_head(overlay, loss):
    folder = f"joint_{loss}"
    done = run(
        overlay, *JOINT, f"head.loss={loss}", "backbone.epochs=2", "backbone.batch_size=1000", f"hydra.run.dir={folder}"
    )
    assert done.returncode == 0, done.stderr
    record = pd.read_csv(overlay / folder / "record.csv")
    trained = record[(record.stage == "backbone") & (record.metric == "train_loss")].set_index("step").value
    head = record[(record.stage == "head") & (record.metric == "loss")].set_index("step").value
    assert list(trained.index) == list(head.index) == [0, 1, 2]
    assert trained.to_numpy() == pytest.approx(head.to_numpy(), rel=1e-5)


def test_it_is_a_choice_and_machinery_beside_it_is_none(overlay):
    done = run(overlay, "protocol=dufm", "head.loss=_machinery")
    assert done.returncode == 2
    assert "head.loss=_machinery is not known; allowed: cross_entropy, logistic, mse" in done.stderr


def test_an_objective_that_its_file_forgets_is_said_to_be_missing(overlay):
    empty = overlay / "pipeline/dufm/objectives/forgotten.py"
    empty.write_text(MACHINERY)
    try:
        code = "from pipeline.dufm.objectives import load_objective; load_objective('forgotten')"
        environment = os.environ | {"PYTHONPATH": str(overlay)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=overlay, capture_output=True, text=True
        )
    finally:
        empty.unlink()
    assert "objectives.forgotten must hold OBJECTIVE, an instance of Objective" in done.stderr
