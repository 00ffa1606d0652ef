"""Orthoplex: figures of class means are told apart by their cosines."""

import torch
from family_results import result_at
from readable import drawn_for
from study_results import one

from pipeline.storage.record import read_summary, write_summary
from pipeline.storage.tensors import write_tensors
from pipeline.studies.orthoplex import claims, draw, parts
from pipeline.theory import Problem


def _run(folder, means, name="", scatter=1e-9):
    """A run that ends with these class means `(K, d)`, two samples of each."""
    classes, width = means.shape
    problem = Problem("cross_entropy", "linear", (2,) * classes, 1, 1e-3, 2e-4)
    result = result_at(folder, f"{name}d_{width}-k_{classes}", problem, None, [width], loss=0.1)
    write_tensors(result.folder, {"features/1": means.repeat_interleave(2, dim=0).expand(2, -1, -1)}, max_mb=10)
    units = torch.nn.functional.normalize(means, dim=1)
    first, second = torch.triu_indices(classes, classes, 1)
    pairs = (units @ units.T)[first, second]
    place = {"layer": 1, "tap": "pre", "dnc1": [scatter] * 2}
    place["opposite_pairs"] = [float((pairs < -0.95).double().mean())] * 2
    place["orthogonal_pairs"] = [float((pairs.abs() < 0.05).double().mean())] * 2
    write_summary(result.folder, read_summary(result.folder) | {"layers": [place]})
    return result


def _simplex(size):
    return torch.linalg.svd(torch.eye(size).double() - 1 / size)[0][:, : size - 1]


AXES = torch.cat([torch.eye(4), -torch.eye(4)]).double()
TWO_PARTS = torch.block_diag(_simplex(4), _simplex(2))


def test_an_orthoplex_and_two_simplices_hold(tmp_path):
    runs = [_run(tmp_path, AXES), _run(tmp_path, TWO_PARTS), _run(tmp_path, _simplex(5))]
    judged = claims(runs)
    assert all(claim.holds for claim in judged)
    assert one(judged, "K = 6: class means form 2").measured == "2, of 4 + 2 classes"
    assert one(judged, "orthoplex").expected == "0.143, 0.857"
    (figure,) = drawn_for("column", lambda: draw(runs)).values()
    assert len(figure.axes) == 3


def test_bent_figures_and_scattered_samples_fail(tmp_path):
    bent = AXES.clone()
    bent[0, 1] = 0.5
    judged = claims([_run(tmp_path, bent, scatter=1e-3)])
    for part in ("largest cosine", "form 4 orthogonal parts", "an orthoplex", "scatter"):
        assert not one(judged, part).holds
    bent = _simplex(5)
    bent[0] += 0.1 * bent[1]
    assert not one(claims([_run(tmp_path, bent)]), "distance to the simplex").holds
    beyond = _run(tmp_path, torch.cat([AXES, torch.ones(1, 4).double()]))
    assert one(claims([beyond]), "K = 9: largest cosine").holds


def test_parts_are_joined_by_any_chain_of_cosines():
    pairs = list(zip(*torch.triu_indices(4, 4, 1).tolist(), strict=True))
    cosines = torch.zeros(len(pairs))
    assert parts(cosines, 4) == [1, 1, 1, 1]
    cosines[pairs.index((0, 3))], cosines[pairs.index((1, 3))] = -0.2, 0.1
    assert parts(cosines, 4) == [3, 1]


def test_the_largest_cosine_is_not_to_grow_as_the_decay_falls(tmp_path):
    tilted = AXES[:7].clone()
    tilted[0, 1] = 0.1
    first, second = _run(tmp_path, AXES[:7]), _run(tmp_path, tilted, "decay_0.0001-")
    for run, decay in ((first, 1e-3), (second, 1e-4)):
        summary = read_summary(run.folder)
        summary["problem"]["weight_decay"] = [decay]
        write_summary(run.folder, summary)
    assert not one(claims([first, second]), "as the decay falls").holds
    assert one(claims([first, first]), "as the decay falls").holds
