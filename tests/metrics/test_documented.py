"""The page of measures: it names every metric, its examples run, and its lines measure what they ask for."""

import re
import shlex
from pathlib import Path

import matplotlib
import pytest
from hydra import compose, initialize_config_dir

from pipeline.config import conf_folder
from pipeline.config.messages import register
from pipeline.metrics import registry
from pipeline.runs.checking import checked
from pipeline.runs.execution import execute
from pipeline.runs.inputs import prepare
from pipeline.storage.record import read_record

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "measures.md").read_text()
SMALL = ["logger=none", "trainer=cpu", "trainer.threads=1", "record.figures=false"]
SMALL += ["backbone.epochs=1", "data.samples_per_class=10"]


def test_every_registered_metric_and_family_is_named_in_the_pages() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE + (DOCS / "metrics.md").read_text()))
    assert set(registry.metrics()) <= named
    for value in registry.class_values().values():
        (line,) = re.findall(rf"^\| {value.family} \|.*`{value.name}`.*$", PAGE, re.M)
        assert line.startswith(f"| {value.family} | `")
    titles = re.findall(r"^## (\w+)$", PAGE, re.M)
    assert titles[0] == registry.CORE and set(titles) == set(registry.families())


def test_the_tables_say_the_value_at_collapse_that_the_registry_has() -> None:
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        names = [name for name in re.findall(r"`(\w+)`", cells[0]) if name in registry.metrics()]
        if len(cells) < 6 or len(names) != 1 or (target := registry.metrics()[names[0]].target) is None:
            continue
        assert float(cells[3]) == target, line


def test_the_examples_run_and_print_what_they_say(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    examples = re.findall(r"```python\n(.*?)```\n\nprints\n\n```text\n(.*?)```", PAGE, re.S)
    assert len(examples) == PAGE.count("```python") == len(registry.families()) + 1  # and one that draws them all
    with matplotlib.rc_context({"backend": "agg"}):
        for code, stated in examples:
            exec(code, names)
            printed = capsys.readouterr().out
            numbers = [[float(it) for it in re.findall(r"-?\d+\.\d+", text)] for text in (printed, stated)]
            # Rounded to a digit, which may be the next one on another processor.
            assert numbers[0] == pytest.approx(numbers[1], abs=0.15), (code, printed, stated)
            assert re.sub(r"-?\d+\.\d+", "", printed) == re.sub(r"-?\d+\.\d+", "", stated)
    assert set(names["drawn"]) == set(registry.families()) and all(at for _, at in names["drawn"].values())
    for figure in ("measures.png", "measures_families.png"):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")


(LINES,) = re.findall(r"## On the command line\n.*?```sh\n(.*?)```", PAGE, re.S)


@pytest.mark.parametrize("line", LINES.replace("\\\n", " ").splitlines())
def test_the_command_measures_the_families_of_a_line(line, tmp_path) -> None:
    register()
    words = shlex.split(line)[1:]
    words += [] if "backbone=residual_mlp" in words else ["backbone.hidden=[8,8]"]
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        config = checked(compose("main", [*words, *SMALL]))
    execute(config, prepare(config), tmp_path)
    found = {registry.base_name(name) for name in read_record(tmp_path).metric}
    for family in config.measure.families:
        own = set(registry.families()[family].metrics)
        assert len(own & found) > len(own) / 2, family
