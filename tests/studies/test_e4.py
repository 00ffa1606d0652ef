"""E4: what is swept, and claims about the order of settings."""

from dataclasses import replace

from readable import drawn_for
from study_results import one

from pipeline.studies.e4 import GRIDS, claims, draw, swept
from pipeline.studies.engine.results import Point


def at(result, name: str, lr: float = 0.05):
    """The result as that of a point of E4."""
    config = replace(result.config, optimizer=replace(result.config.optimizer, lr=lr))
    return replace(result, point=Point(name, ()), config=config)


def test_the_base_point_belongs_to_every_sweep_but_that_of_another_regularisation(network):
    results = [
        at(network(), name) for name in ("lr-lr_0.1-seed_0", "standard-weight_decay_0.001-seed_0", "base-seed_0")
    ]
    assert [result.point.name for result in swept(results, "lr")] == ["lr-lr_0.1-seed_0", "base-seed_0"]
    assert [result.point.name for result in swept(results, "standard")] == ["standard-weight_decay_0.001-seed_0"]


def test_the_names_of_points_begin_with_those_of_their_grids():
    for grid in GRIDS:
        assert all(point.name.startswith(f"{grid.name}-") for point in grid.points())


def test_a_larger_rate_is_compared_by_the_ends(network):
    slow, fast = network(dnc2=(1.5, 1.3, 1.2)), network(dnc2=(1.5, 1.1, 1.01))
    for rates, holds in (((0.01, 0.1), True), ((0.1, 0.01), False)):
        results = [at(result, f"lr-lr_{lr}-seed_0", lr) for result, lr in zip((slow, fast), rates, strict=True)]
        assert one(claims(results), "a larger learning rate").holds is holds
    assert one(claims([at(slow, "lr-lr_0.01-seed_0", 0.01)]), "a larger learning rate").holds is None


def test_what_is_not_fitted_is_open_and_categories_are_not_joined(network):
    names = {"width-width_2-seed_0": 2, "width-width_16-seed_0": 16, "activation-activation_linear-seed_0": 64}
    results = [at(network(), "base-seed_0")]
    for name, width in names.items():
        result = at(network(accuracy=0.5 if width == 2 else 1.0), name)
        head = replace(result.config.head, width=width, activation="linear" if width == 64 else "relu")
        results.append(replace(result, config=replace(result.config, head=head)))
    (figure,) = drawn_for("column", lambda: draw(results)).values()
    width, activation = (
        next(axes for axes in figure.axes if axes.get_xlabel().startswith(text)) for text in ("width", "activation")
    )
    open_dots = [line.get_xdata() for line in width.lines if line.get_markerfacecolor() == "white"]
    assert {round(float(x)) for xs in open_dots for x in xs} == {2}
    joined = [line for line in activation.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    assert all(list(line.get_xdata()) == [0, 1] for line in joined)  # thresholds only
    assert any(line.get_linestyle() == "-" and len(line.get_xdata()) == 3 for line in width.lines)
