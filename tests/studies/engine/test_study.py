"""All registered studies, and one that is added by writing files."""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from overlay import Overlay
from readable import assert_readable

from pipeline.config import conf_folder
from pipeline.runs.protocols import protocol_named
from pipeline.studies.engine.jobs import Job, essence
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, VERSIONS, Grid, points_along, shrunk, studies
from pipeline.studies.engine.tables import VERDICTS, claims_frame

MOST, MOST_NETWORKS = 4, 3
"""Points of a quick version that are run shrunk, and of one that trains networks."""
ON_DIGITS = ["data=digits", "data.classes=[0,1]", "data.samples_per_class=20", "backbone.epochs=1"]
SMALL = ["descent.steps=12", "descent.seeds=2", "protocol.samples_per_class=3", "record.figures=false"]
SMALL += ["descent.polish=false", "descent.records_per_decade=2"]
SHORTENED = {"descent.steps", "backbone.epochs", "data.vocabulary"}
"""What is made small although points differ in it: no figure needs it to differ."""
WITHOUT_FILES = ["data.download=true", "data.root=."]
"""Spares a configuration the files of data sets that this machine may not have."""


@cache
def settings_of(study: str, point: Point) -> dict[str, object]:
    """What decides the outcome of a point; versions share many."""
    return essence(Job.plan(study, point, WITHOUT_FILES, Path(point.name)).config)


@cache
def to_check(name: str) -> dict[str, list[Point]]:
    """Of every version as few points as have, with the smaller versions', every value of every setting but the seed: to
    check a configuration takes its time, and a study checks all its points before it begins."""
    chosen, seen, study = {}, set(), studies()[name]
    for version in (QUICK, CPU, FULL):
        chosen[version] = []
        for point in study.chosen(version) if version in (*study.versions, FULL) else ():
            values = {one for one in (*point.overrides, *point.shrunk) if not one.startswith("seed=")}
            if not seen.issuperset(values) or not chosen[version]:
                chosen[version].append(point)
                seen |= values
    return chosen


def unlike(points: Sequence[Point], most: int) -> list[Point]:
    """So many points, first of all those with a value of a setting, but for the seed, that none before has."""
    new, seen = [], set()
    for point in points:
        values = {one for one in point.overrides if not one.startswith("seed=")}
        if not seen.issuperset(values):
            new.append(point)
            seen |= values
    return [*new, *(point for point in points if point not in new)][:most]


def varying(points: Sequence[Point]) -> set[str]:
    """The settings in which points differ: shrinking these would make one point of several."""
    said = [dict(one.split("=", 1) for one in point.overrides) for point in points]
    return {key for settings in said for key in settings if len({each.get(key) for each in said}) > 1}


@pytest.mark.parametrize(
    ("name", "version"),
    [
        pytest.param(name, version, marks=[] if version == QUICK else pytest.mark.slow)
        for name in studies()
        for version in VERSIONS
        if version == FULL or version in studies()[name].versions
    ],
)
def test_every_point_is_a_valid_configuration_unlike_all_others(name, version):
    points = studies()[name].chosen(version)
    different = {frozenset(dict(one.split("=", 1) for one in point.overrides).items()) for point in points}
    assert points and len({point.name for point in points}) == len(different) == len(points)
    assert all(Path(point.name).name == point.name for point in points)
    seen = [settings_of(name, point) for point in to_check(name)[version]]
    assert all(config not in seen[:place] for place, config in enumerate(seen))


@pytest.mark.parametrize("name", studies())
def test_a_study_says_what_it_is_about_and_what_it_rests_on(name):
    header = sys.modules[f"pipeline.studies.{name}"].__doc__
    for part in ("Paper:", "Shows:", "Expects:", "Evidence:", "Command:", "Machine:", "Date:", "Commit"):
        assert part in header
    assert (conf_folder() / "experiment" / f"{name}.yaml").is_file()


@pytest.mark.parametrize("name", studies())
def test_smaller_versions_do_less(name):
    study = studies()[name]
    full = {point.name for point in study.points}
    for version in (CPU, QUICK):
        assert {point.name for point in study.chosen(version)} <= full
    assert QUICK not in study.versions or all(point.shrunk for point in study.chosen(QUICK))


@pytest.mark.slow
@pytest.mark.parametrize("name", studies())
def test_figures_tables_and_claims_are_made_of_whatever_came_out(name, tmp_path):
    study = studies()[name]
    results = []
    points = unlike(study.chosen(QUICK), MOST)
    varied = varying(points) - SHORTENED
    for point in points:
        protocol = protocol_named(settings_of(name, point)["protocol.name"])
        if protocol.images and len(results) == MOST_NETWORKS:
            break
        smaller = [*SMALL, *(ON_DIGITS if protocol.images else [])] if protocol.head else ["protocol.repeats=2"]
        if protocol.images and not protocol.head:
            few = {
                "rfm": ["data.samples_per_class=20", "backbone.width=16"],
                "transformer": ["backbone.epochs=0", "data.vocabulary=40"],
                "leaky": ["optimizer.iterations=2"],
                "mean_field": ["backbone.epochs=20", "data.samples_per_class=20"],  # what follows what, in several
            }
            usual = few.get(settings_of(name, point)["backbone.name"], ["data.samples_per_class=20"])
            own = few.get(protocol.name, usual)
            smaller = ["backbone.epochs=1", "record.figures=false", *own]
        kept = [override for override in smaller if override.partition("=")[0] not in varied]
        job = Job.plan(name, point, kept, tmp_path / point.name)
        assert job.order().perform() is None and job.is_finished
        results.append(Result(job.point, job.config, job.folder))
    figures, tables = study.draw(results), study.tables(results)
    for key, figure in figures.items():
        if hasattr(figure, "medium"):
            assert_readable(figure, key)
    assert figures and all(key.startswith(name) for key in (*figures, *tables))
    assert all(len(table) for table in tables.values())
    claims = claims_frame({name: study.claims(results)})
    assert len(claims) and claims.claim.is_unique and claims.claim.all() and set(claims.holds) <= set(VERDICTS.values())


def test_studies_come_in_the_order_of_their_numbers():
    numbered = [name for name in studies() if name[1].isdigit()]
    assert numbered == sorted(numbered, key=lambda name: (int(name[1]), name)) and len(numbered) > 1


def test_points_along_a_setting_are_named_after_its_values():
    points = points_along("descent.lr", 0.5, 1, also=("descent.steps=3",))
    assert points[0] == Point("lr_0.5", ("descent.lr=0.5", "descent.steps=3"))
    assert shrunk(points, ["lr_1"], ("seed=1",)) == (Point("lr_1", ("descent.lr=1", "descent.steps=3"), ("seed=1",)),)


def test_a_grid_is_the_multirun_of_its_points():
    grid = Grid("variant", {"experiment": ("a", "b"), "head.depth": (3, 5)}, ("protocol=dufm",))
    assert grid.multirun == ["--multirun", "protocol=dufm", "experiment=a,b", "head.depth=3,5"]
    points = grid.points(lambda values: (f"descent.steps={values['head.depth']}",))
    assert [point.name for point in points] == [
        "variant-a-depth_3",
        "variant-a-depth_5",
        "variant-b-depth_3",
        "variant-b-depth_5",
    ]
    assert points[1] == Point(
        "variant-a-depth_5", ("protocol=dufm", "experiment=a", "head.depth=5"), ("descent.steps=5",)
    )


def test_what_is_left_of_a_grid_is_the_smallest_that_holds_its_open_points():
    grid = Grid("g", {"head.depth": (3, 5), "seed": (0, 1, 2)})
    left = grid.without(lambda name: not name.endswith("seed_1"))
    assert left.axes == {"head.depth": (3, 5), "seed": (1,)}
    assert grid.without(lambda name: True) is None


NEW_STUDY = '''"""E5: the start. Paper: ours. Shows and expects: a larger start takes longer. Evidence: not recorded."""

import pandas as pd

from pipeline.studies.engine.claims import at_most
from pipeline.studies.engine.study import FULL, QUICK, Study, points_along, shrunk

POINTS = points_along("head.init_scale", 1, 2)


def losses(results):
    return {"e5": pd.DataFrame({"point": [r.point.name for r in results], "loss": [max(r.losses) for r in results]})}


STUDY = Study(
    name="e5",
    group="ours",
    title="the start",
    versions={FULL: POINTS, QUICK: shrunk(POINTS, ("init_scale_1", "init_scale_2"), ("descent.steps=8",))},
    claims=lambda results: [at_most(r.point.name, r.losses, 0.6) for r in results],
    tables=losses,
)
'''
NEW_EXPERIMENT = """# @package _global_
# E5: the start.
defaults:
  - e1
  - _self_

head:
  width: 4
protocol:
  num_features: 4
  samples_per_class: 3
record:
  figures: false
"""


@pytest.mark.slow
def test_a_new_study_is_a_file_and_its_experiment(tmp_path):
    files = {"pipeline/studies/e5.py": NEW_STUDY, "conf/experiment/e5.yaml": NEW_EXPERIMENT}
    overlay = Overlay(tmp_path, files)
    listed = overlay.python("-m", "pipeline.studies", "--list").stdout
    assert any(line.startswith("e5 ") for line in listed.splitlines())
    said = overlay.python("-m", "pipeline.studies", "ours", "--quick", "--out", "out").stdout
    assert "[2/2, " in said and "of 2 claims hold" in said
    out = tmp_path / "out" / "quick"
    assert {path.parent.name for path in out.glob("runs/e5/*/record.csv")} == {"init_scale_1", "init_scale_2"}
    assert (out / "tables" / "e5.csv").exists() and (out / "tables" / "e5_claims.md").exists()
