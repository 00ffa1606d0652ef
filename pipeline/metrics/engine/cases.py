"""Cases in which metrics have no finite value, to be named in `@metric(...)`; the first that holds counts.

Cases of the features get the class statistics first; cases of a weight get it last. `MEANS_EXIST` begins the list of
every metric of class means, `CLASSES_COUNT` that of every value of each class; `WEIGHT_EXISTS` stands in that of every
metric that divides by the size of a weight.
"""

from collections.abc import Sequence

from pipeline.metrics.engine.class_pairs import closest_pair
from pipeline.metrics.engine.undefined import Exceptional

# Cases of the features: `holds` gets (statistics, ...).
NOT_FINITE = Exceptional("the features are not finite, or overflow when squared", lambda s, *_: ~s.finite)
NO_SAMPLES = Exceptional("there are no samples", lambda s, *_: s.occupied == 0)
NOT_COUNTED = Exceptional(
    "a function made the rows, so that active units could not be counted", lambda s, *_: s.active.isnan()
)
ONE_CLASS = Exceptional("the data hold one class only", lambda s, *_: s.occupied == 1)
TOO_FEW = Exceptional(
    "fewer than two classes have the min_samples that count",
    lambda s, *_: (s.occupied < 0) if s.counted is None else (s.occupied >= 0),
)
EMPTY_CLASS = Exceptional("a class has no samples", lambda s, *_: s.occupied < s.num_classes)
NO_BETWEEN_SCATTER = Exceptional(
    "the class means coincide (zero between-class scatter)", lambda s, *_: s.between_trace <= s.noise_floor
)
EQUAL_MEANS = Exceptional("two class means coincide", lambda s, *_: closest_pair(s) <= s.noise_floor)
ZERO_MEANS = Exceptional("all class means are zero", lambda s, *_: (s.mean_norms == 0).all(-1))
DEPENDENT_MEANS = Exceptional(
    "the class means are linearly dependent (the K-th singular value is zero at the precision of the features)",
    lambda s, *_: s.mean_singular_values[..., -1] <= s.negligible(s.mean_singular_values[..., 0]),
    value=float("inf"),
)
CLASSES_COUNT = (NOT_FINITE, NO_SAMPLES, ONE_CLASS, TOO_FEW)
MEANS_EXIST = (*CLASSES_COUNT, EMPTY_CLASS)


def left_out_sentence(
    classes: Sequence[int | str], num_classes: int, min_samples: int, max_samples: int | None = None
) -> str:
    """Tell which classes are left out of the metrics, the first ten of them."""
    least = "no samples" if min_samples == 1 else f"fewer than {min_samples} samples"
    least += "" if max_samples is None else f", or more than {max_samples},"
    named = ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")
    return f"{len(classes)} of {num_classes} classes have {least} and are left out of the metrics: {named}"


# Cases of a weight matrix, which is always the last argument: `holds` gets (..., weight).
WEIGHT_NOT_FINITE = Exceptional("the weight is not finite", lambda *a: ~a[-1].isfinite().all(-1).all(-1))
ZERO_WEIGHT = Exceptional("the weight is zero", lambda *a: (a[-1] == 0).all(-1).all(-1))
NEXT_WEIGHT_NOT_FINITE = Exceptional("the next weight is not finite", lambda n, _: ~n.isfinite().all(-1).all(-1))
WEIGHT_EXISTS = (WEIGHT_NOT_FINITE, ZERO_WEIGHT)

# Cases of a list of singular values: `holds` gets (singular_values, ...).
SPECTRUM_NOT_FINITE = Exceptional("the matrix is not finite", lambda s, *_: ~s.isfinite().all(-1))
ZERO_SPECTRUM = Exceptional("the matrix is zero", lambda s, *_: s[..., 0] == 0)
