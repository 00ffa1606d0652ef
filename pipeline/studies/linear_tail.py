"""Linear tails: with more linear layers at the end, class means become better conditioned, and weights balanced.

Paper: arXiv 2410.04887 (wide networks trained with weight decay provably exhibit neural collapse).
Shows: balance of each pair of the tail against the epoch; NC1 and NC2 of the rows that enter the first and the last
    linear layer against their number; NC2 along the tail; balance and negativity of nonlinear networks by their depth.
Expects: NC2 of the last layer falls with the number of linear layers, balance below .05, log NC2 a straight line along
    the tail; the certificate never below the scatter; the deeper, the more balanced and the less negative.
Evidence: docs/reproduction/measures.md and linear_tail*.csv there.
    Command: scripts/reproduce linear_tail --cpu
    Machine: one of 2 shared cores of an x86-64 processor, no GPU, float32, torch 2.14.1.
    Date: 2026-11-27. Commit of the code: 3c16d59.
Provenance: claims, and settings of the full version, read in a digest of the paper; normalisation of balancedness_op
    recalled; certificate, straight line and rule 2 lr decay t >= 5 derived. Settings of the small versions ours. The
    number counts the classifier as the last linear layer. Depth sweep: decay .016/L read; start scaled by sqrt 6 (He's
    variance, without which twelve ReLU layers pass nothing on) and rate .08/L of the small version ours.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import log
from typing import TYPE_CHECKING

from pipeline.studies._family import every
from pipeline.studies._measured import (
    CLASSIFIER,
    COMMON,
    GROUP,
    Place,
    by_data,
    curve,
    drawn,
    end,
    figures,
    numbers,
    places,
    tables,
)
from pipeline.studies.engine.claims import OURS, READ, THEOREM, Claim, owned, reasoned
from pipeline.studies.engine.results import Point, Result
from pipeline.studies.engine.study import CPU, FULL, QUICK, Study, shrunk
from pipeline.views import marks, style
from pipeline.views.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIGITS = tuple(Point(f"linear_{count}", (f"backbone.linear_tail={count - 1}",)) for count in (1, 2, 3, 4))
FULL_SETTINGS = ("data=mnist", "data.classes=null", "data.samples_per_class=null", "backbone.batch_size=128")
FULL_SETTINGS += ("backbone.hidden=[1024,1024,1024,1024,1024]", "optimizer.lr=1e-3", "optimizer.weight_decay=1e-3")
POINTS = tuple(
    Point(f"mnist-linear_{count}", (f"backbone.linear_tail={count - 1}", *FULL_SETTINGS)) for count in range(1, 6)
)
MLP_ALONE = "backbone.hidden=[256,64]"
"""The default: others than an MLP have no hidden widths."""
NINE = (*FULL_SETTINGS[:-1], "backbone.linear_tail=3", "optimizer.weight_decay=1.8e-3", "backbone.epochs=10000")
RESNET = ("data=cifar10", *FULL_SETTINGS[1:4], "backbone=resnet20", MLP_ALONE, "backbone.linear_tail=2")
RESNET += FULL_SETTINGS[5:]
SINGLE = (Point("mnist-nine_layers", NINE), Point("cifar10-resnet20", RESNET))
"""Networks of their own, of which there is one: five ReLU layers and four linear ones; ResNet-20 with three linear
layers (the paper's has three ReLU layers between)."""


def _deep(data: str, depths: Sequence[int], width: int, rate: float, *more: str) -> tuple[Point, ...]:
    """Networks of nonlinear layers alone, of several depths L; decay .016/L."""
    return tuple(
        Point(
            f"{data}-depth_{depth}",
            (
                *more,
                "backbone.linear_tail=0",
                f"backbone.hidden=[{','.join([str(width)] * depth)}]",
                f"optimizer.lr={rate / depth:.6g}",
                f"optimizer.weight_decay={0.016 / depth:.6g}",
                f"backbone.init_scale={HE}",
            ),
        )
        for depth in depths
    )


HE = 2.449
"""Root of 6: from PyTorch's start of a layer to He's variance 2/d."""
DEEP_DIGITS = _deep("digits", (4, 6, 8), 64, 0.08)
DEEP = _deep("mnist", range(4, 13), 1024, 0.008, *FULL_SETTINGS[:4])
SMALL = ("data.samples_per_class=100", "backbone.batch_size=0", "backbone.hidden=[64,64,64]")
SMALL += ("optimizer.lr=0.02", "optimizer.weight_decay=3e-3")
"""1,000 images of MNIST in the network of the digits."""
CPU_POINTS = (*DIGITS, *shrunk(POINTS, [f"mnist-linear_{count}" for count in (1, 3)], SMALL), *DEEP_DIGITS)
QUICK_POINTS = shrunk(DIGITS, [f"linear_{count}" for count in (1, 2, 3)], ("backbone.epochs=4200", *COMMON))
BALANCED, ENOUGH, STRAIGHT, FITTED = 0.05, 4.0, 0.1, 0.99
"""Balance that counts as reached; time constants of its decay that a run must last; deviation of log NC2;
training accuracy from which a deep network decides."""

PAIRS = ("first", "second", "third", "fourth")
"""Of the linear layers, in the order of data flow."""

REASONS: dict[str, str] = {}
"""Why claims do not hold, by a part of their text."""


def claims(results: Sequence[Result]) -> list[Claim]:
    """NC2, conditioning and balance by the number of linear layers, the straight line and the certificate; depth."""
    results, single = _without_single(results)
    tails, deep = _kinds(results)
    made = [claim for result in single for claim in _claims(result.point.name, [result])]
    made += [claim for data, own in by_data(tails).items() for claim in _claims(data, own)]
    return reasoned((*made, *(claim for data, own in by_data(deep).items() for claim in _of_depth(data, own))), REASONS)


def _claims(data: str, results: Sequence[Result]) -> list[Claim]:
    made, ordered = [], sorted(results, key=count_of)
    lasted = min(decay_times(result) for result in ordered)
    if len(ordered) > 1:
        counts = ", ".join(str(count_of(result)) for result in ordered)
        for owner, name, values in (
            (READ, "NC2 of what enters the last layer falls", [end(r, CLASSIFIER, "dnc2") for r in ordered]),
            (OURS, "the last weight is better conditioned", [end(r, CLASSIFIER, "kappa_weight") for r in ordered]),
        ):
            falls = all(after < before for before, after in pairwise(values))
            made += owned(
                owner, Claim(f"{data}: {name} with linear layers ({counts})", "falling", numbers(values), falls)
            )
        firsts = [end(result, tail(result)[0], "dnc2") for result in ordered]
        rises = all(after > before for before, after in pairwise(firsts))
        text = f"{data}: NC2 of what enters the first linear layer rises with linear layers ({counts})"
        made += owned(OURS, Claim(text, "rising", numbers(firsts), rises))
    for result in (each for each in ordered if count_of(each) > 1):
        name, pairs = result.point.name, tail(result)[:-1]
        found = [end(result, place, "balancedness_op") for place in pairs]
        claim = every(
            f"{name}: balance of each pair, at most {BALANCED}", [v <= BALANCED for v in found], numbers(found)
        )
        short = lasted < ENOUGH
        made += owned(READ, Claim(claim.claim, claim.expected, claim.measured, claim.holds or _unless(short)))
        away = _off_the_line(result)
        text = f"{name}: log NC2 along the tail is a straight line, deviation"
        made += owned(THEOREM, Claim(text, f"<= {STRAIGHT}", f"{away:.3g}", away <= STRAIGHT or _unless(short)))
        certificate = result.summary["certificate"]
        measured = f"{certificate['within']:.3g} <= {certificate['within_bound']:.3g}"
        text = f"{name}: the scatter before the last layer is below its certificate"
        made += owned(THEOREM, Claim(text, "below", measured, bool(certificate["holds"])))
    return made


def _of_depth(data: str, results: Sequence[Result]) -> list[Claim]:
    """Networks that do not fit their images decide nothing."""
    ordered = sorted(results, key=depth_of)
    if len(ordered) < 2:
        return []
    fitted = all(end(result, None, "train_accuracy") >= FITTED for result in ordered)
    depths, made = ", ".join(str(depth_of(result)) for result in ordered), []
    for name, values in (
        ("more balanced", [balances(result)[-1] for result in ordered]),
        ("less negative", [negativities(result)[-1] for result in ordered]),
    ):
        falls = all(after < before for before, after in pairwise(values))
        text = f"{data}: the deeper the nonlinear part, the {name} its last layers (depths {depths})"
        made += owned(READ, Claim(text, "falling", numbers(values), falls if fitted else None))
    return made


def draw(results: Sequence[Result]) -> "dict[str, Figure]":
    """Balance over training; NC1 and NC2 over the number of linear layers; NC2 along the tail; what depth does."""
    results, single = _without_single(results)
    tails, deep = _kinds(results)
    drawn_alone = {f"linear_tail_{result.point.name}": _figure([result]) for result in single}
    return figures("linear_tail", tails, _figure) | figures("linear_tail_depth", deep, _depth_figure) | drawn_alone


def _figure(results: Sequence[Result]) -> "Figure":
    ordered = sorted(results, key=count_of)
    counts = [count_of(result) for result in ordered]
    with Sheet(1, 3, title="Linear layers at the end: balance of their weights and collapse", width=1.3) as sheet:
        balance, ends, along = sheet.row(0)
        for result, count, color in zip(ordered, counts, style.shades(len(ordered)), strict=True):
            for place, dashes in zip(tail(result)[:-1], style.LINES, strict=False):
                drawn(balance, curve(result, place, "balancedness_op"), color=color, linestyle=dashes)
            values = [end(result, place, "dnc2") for place in tail(result)]
            along.plot(range(len(values), 0, -1), values, color=color, marker="o")
            sheet.legend([marks.line(f"{count} linear layer{'s' * (count > 1)}", color, marker="o")])
        pairs = zip(PAIRS[: max(counts) - 1], style.LINES, strict=False)
        sheet.legend([marks.line(f"{which} pair", style.GREY, dashes) for which, dashes in pairs])
        balance.axhline(BALANCED, **style.THRESHOLD)
        balance.set(yscale="log", ylabel="imbalance of a pair of layers, operator norm")
        sheet.legend([marks.line(f"balanced: {BALANCED:g}", **style.THRESHOLD)])
        sheet.legend(_over_counts(ends, ordered))
        along.set(yscale="log", xlabel="linear layer, counted from the end", ylabel="NC2 of the input")
        along.invert_xaxis()
        marks.numbered(along, range(1, max(counts) + 1))
    return sheet.figure


def _depth_figure(results: Sequence[Result]) -> "Figure":
    ordered = sorted(results, key=depth_of)
    depths = [depth_of(result) for result in ordered]
    with Sheet(1, 2, title="Nonlinear networks by their depth: balance and negativity", width=1.5) as sheet:
        for axes, values_of, label in zip(
            sheet.row(0),
            (balances, negativities),
            ("imbalance of neighbouring layers", "negativity of what enters a ReLU"),
            strict=True,
        ):
            found = [values_of(result) for result in ordered]
            for name, taken, color, marker in (
                ("mean over layers", lambda each: sum(each) / len(each), style.BLUE, "o"),
                ("least of all layers", min, style.GREEN, "s"),
                ("last layer", lambda each: each[-1], style.RED, "^"),
            ):
                axes.plot(depths, [taken(each) for each in found], color=color, marker=marker)
                sheet.legend([marks.line(name, color, marker=marker)])
            axes.set(xlabel="nonlinear layers", ylabel=label)
            marks.numbered(axes, depths)
    return sheet.figure


def _without_single(results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Those that are compared, and networks of their own."""
    names = [point.name for point in SINGLE]
    alone = [result.point.name.partition("-seed_")[0] in names for result in results]
    both = list(zip(results, alone, strict=True))
    return [result for result, it in both if not it], [result for result, it in both if it]


def _kinds(results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Those with linear layers, and those by depth."""
    deep = ["depth_" in result.point.name for result in results]
    return tuple([result for result, it in zip(results, deep, strict=True) if it is wanted] for wanted in (False, True))


def depth_of(result: Result) -> int:
    """Nonlinear layers."""
    return len(result.config.backbone.hidden)


def balances(result: Result) -> list[float]:
    """Imbalance of neighbouring layers at the end, operator norm, in the order of data flow."""
    found = [end(result, place, "balancedness_op") for place in places(result)]
    return [value for value in found if value == value]


def negativities(result: Result) -> list[float]:
    """Negativity of what enters each ReLU at the end."""
    return [end(result, place, "negativity") for place in places(result, "pre")]


def count_of(result: Result) -> int:
    """Linear layers at the end, the classifier among them."""
    return int(result.config.backbone.linear_tail) + 1


def tail(result: Result) -> list[Place]:
    """The places whose rows enter the linear layers, first to last."""
    return [*places(result)[-count_of(result) : -1], CLASSIFIER] if count_of(result) > 1 else [CLASSIFIER]


def decay_times(result: Result) -> float:
    """2 lr decay t / (1 - momentum), a tenth of the rate in the last fifth: imbalance is left by exp of minus that."""
    settings, steps = result.config.optimizer, int(result.record.step.max())
    share = 0.8 + 0.2 * 0.1 if settings.schedule == "drop" else 1.0
    return 2 * settings.lr / (1 - settings.momentum) * settings.weight_decay * steps * share


def _unless(short: bool) -> bool | None:
    """What is not reached is missed, unless the run was too short for it."""
    return None if short else False


def _off_the_line(result: Result) -> float:
    """Largest deviation of log NC2 of what enters the j-th layer from the end from j times that of the last."""
    values = [log(end(result, place, "dnc2")) for place in reversed(tail(result))]
    each = sum(number * value for number, value in enumerate(values, start=1))
    each /= sum(number**2 for number in range(1, len(values) + 1))
    return max(abs(value - number * each) for number, value in enumerate(values, start=1))


def _over_counts(axes: "Axes", ordered: Sequence[Result]) -> list:
    """Returns the entries of a legend."""
    counts, handles = [count_of(result) for result in ordered], []
    for metric, color, name in (("dnc1", style.BLUE, "NC1"), ("dnc2", style.GREEN, "NC2")):
        for dashes, marker, which, place in ((style.LINES[0], "^", "last", -1), (style.LINES[1], "s", "first", 0)):
            values = [end(result, tail(result)[place], metric) for result in ordered]
            axes.plot(counts, values, color=color, marker=marker, linestyle=dashes)
            handles.append(marks.line(f"{name}, {which} layer", color, dashes, marker=marker))
    axes.set(yscale="log", xlabel="number of linear layers", ylabel="NC1, NC2 of the input")
    marks.numbered(axes, counts)
    return handles


STUDY = Study(
    name="linear_tail",
    group=GROUP,
    title="linear layers at the end: conditioning, balance, certificate",
    versions={FULL: (*DIGITS, *DEEP_DIGITS, *POINTS, *SINGLE, *DEEP), CPU: CPU_POINTS, QUICK: QUICK_POINTS},
    draw=draw,
    claims=claims,
    tables=tables("linear_tail", "dnc1", "dnc2", "balancedness_op", "kappa_weight", "negativity", "within_bound"),
)
