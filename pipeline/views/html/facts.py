"""The parts of a run's report that are read: verdict, configuration, environment, how to run it again and cite it."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.storage.summary import HEAD, judged
from pipeline.views.html.formatting import flat, number, setting
from pipeline.views.html.markup import Html, facts, table, tag
from pipeline.views.html.runs import LocalRun
from pipeline.views.shown import layer_name

PAPERS = """\
@inproceedings{sukenik2023deep,
  title     = {Deep Neural Collapse Is Provably Optimal for the Deep Unconstrained Features Model},
  author    = {S{\\'u}ken{\\'i}k, Peter and Mondelli, Marco and Lampert, Christoph H.},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023},
  note      = {arXiv 2305.13165}
}
@article{papyan2020prevalence,
  title   = {Prevalence of Neural Collapse during the Terminal Phase of Deep Learning Training},
  author  = {Papyan, Vardan and Han, X. Y. and Donoho, David L.},
  journal = {Proceedings of the National Academy of Sciences},
  year    = {2020}
}"""


PARTS = {"fixed_head": ("Against the DUFM", "Against the DUFM of the head")}
"""Heading and caption of results that have better ones than their own name."""


def headline(run: LocalRun) -> Html:
    """Status, protocol and the numbers one asks for first."""
    cards = {"status": run.status, "protocol": run.protocol or "unknown", "data / backbone": run.subject or "unknown"}
    written = run.summary.written
    if run.completed and run.summary.has_head:
        cards |= _cards_of_head(run)
    elif run.completed:
        cards |= {entry.label: setting(_digits(entry.value)) for entry in run.headline if entry.value is not None}
    seconds = sum((written.get("timings") or {}).values())
    if seconds:
        cards["time"] = f"{seconds:.0f} s"
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in cards.items()), class_="cards")


def _cards_of_head(run: LocalRun) -> dict[str, str]:
    written, gap = run.summary.written, run.known_by("gap_to_optimum")
    cards = {"loss of the head": _range(written["loss"]["total"])}
    if gap is not None:
        cards["relative gap to the optimum"] = _range(written["loss"].get("relative_gap") or [gap])
    for split, values in (written.get("accuracy") or {}).items():
        known = [100 * value for value in values or () if value is not None]
        if known:
            cards[f"accuracy, {split}"] = f"{_range(known, 4)} %"
    return cards | {"seeds": setting(len(written["seeds"]))}


def _digits(value: Any) -> Any:
    """A measured number with the digits that are worth showing."""
    return number(value) if isinstance(value, float) else value


def verdict(run: LocalRun) -> Html:
    """The verdict layer by layer; of a run that did not complete, what there is instead."""
    if not run.completed:
        kept = (run.folder / "record.csv").is_file()
        left = "what it had recorded until then is shown below" if kept else "there is no record of it"
        sentence = f"This run {run.fate}; {left}."
        return tag("p", sentence, tag("br"), run.error or "", class_="warning")
    if not run.summary.has_head:
        return Html("")
    found = run.summary.written["verdict"]
    metrics = found["thresholds"]
    head = ["layer", "tap"] + [f"{metric.upper()} ≤ {threshold:g}" for metric, threshold in metrics.items()]
    seeds = len(run.summary.written["seeds"])
    rows = []
    for place in found["layers"]:
        name = layer_name(run.summary.stage(place["stage"]), str(place["layer"]))
        of_seeds = seeds if place["stage"] == HEAD else 1
        rows.append([name, place["tap"], *(_judged(judged(place, metric), of_seeds) for metric in metrics)])
    layers = table("Where collapse holds at the end: medians over the seeds", head, rows, class_="numbers verdict")
    return Html(layers + "".join(tag("p", sentence, class_="note") for sentence in _notes(run)))


def _notes(run: LocalRun) -> Iterator[str]:
    summary, found = run.summary.written, run.summary.written["verdict"]
    judged_places = (it for place in found["layers"] for it in place.values() if isinstance(it, Mapping))
    starred = any(it.get("theorem") for it in judged_places)
    yield "yes: all seeds meet the threshold." + (
        " * promised by the theorem at the DUFM's optimum." if starred else ""
    )
    for note in found.get("notes") or ():
        yield f"{note[:1].upper()}{note[1:]}."
    if said := found.get("optimum"):
        yield f"{said[:1].upper()}{said[1:]}."
    if found.get("theorem_reason"):
        yield f"The theorem itself does not cover this run: {found['theorem_reason']}."
    for stage, step in (summary.get("stopped_early") or {}).items():
        why = (summary.get("stopped_by") or {}).get(stage)
        told = f"Stopped by {why}" if why else "Stopped when collapsed"
        yield f"{told}: {stage} after {run.summary.stage(stage).unit} {step}."
    for seed, step in (summary.get("diverged") or {}).items():
        yield f"Seed {seed} diverged by step {step}."
    for layer in [*(summary.get("backbone_layers") or ()), *summary["layers"]]:
        for metric, reason in (layer.get("undefined") or {}).items():
            if metric in found["thresholds"]:
                yield f"{metric.upper()} of {layer['layer']} {layer['tap']} is undefined: {reason}."


def _judged(found: Mapping[str, Any] | None, seeds: int) -> Html:
    if found is None:
        return Html("")
    some = found.get("seeds_collapsed")
    word = "yes" if found.get("collapsed") else f"{some}/{seeds} seeds" if some else "no"
    value = "undefined" if found["value"] is None else number(found["value"])
    mark = "*" if found.get("theorem") else ""
    return Html(
        tag("span", value) + " " + tag("span", f"{word}{mark}", class_=f"word {word}" if word == "yes" else "word")
    )


def _range(values: list[float | None], digits: int = 3) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "undefined"
    ends = dict.fromkeys(number(value, digits) for value in (min(known), max(known)))
    return " to ".join(ends)


def further(run: LocalRun, heading: str) -> Html:
    """Results that only some protocols have, each under a heading: as names and values."""
    parts = []
    for name, found in run.summary.further.items():
        plain = name.replace("_", " ").capitalize()
        title, caption = PARTS.get(name, (plain, plain))
        values = flat(found) if isinstance(found, Mapping) else {name: found}
        shown = {key.replace("_", " "): _told(value) for key, value in values.items()}
        parts += [tag(heading, title), facts(caption, shown)]
    return Html("".join(parts))


def _told(value: Any) -> str:
    if isinstance(value, float):
        return number(value, 4)
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return f"{len(value)} entries, in summary.json"
    return setting(value)


def configuration(run: LocalRun) -> Html:
    """Every setting of the run."""
    if not run.config:
        return tag("p", "The run's folder keeps no configuration (.hydra/config.yaml) that can be read.")
    settings = {name: setting(value) for name, value in run.settings.items()}
    return tag("details", tag("summary", f"All {len(settings)} settings"), facts("Configuration", settings))


def environment(run: LocalRun) -> Html:
    """Versions, device, commit, data, timings."""
    summary = run.summary.written
    found = flat({name: summary[name] for name in ("environment", "data", "backbone_weights") if summary.get(name)})
    shown = {
        name.removeprefix("environment.").removeprefix("versions."): setting(value) for name, value in found.items()
    }
    shown |= {f"time: {stage}": f"{seconds:.1f} s" for stage, seconds in (summary.get("timings") or {}).items()}
    if not shown:
        return tag("p", "The run left no summary.")
    short = ", ".join(f"{name} {shown[name]}" for name in ("python", "torch", "device") if name in shown)
    return tag("details", tag("summary", f"Environment: {short}"), facts("Environment", shown))


def again(run: LocalRun) -> Html:
    """The command that repeats the run, and where it was given."""
    if run.unreadable:
        return tag("p", f"Not known: {run.unreadable}.")
    where = (run.hydra.get("runtime") or {}).get("cwd")
    commit = (run.summary.written.get("environment") or {}).get("git_commit")
    said = [f"in the folder {where}" if where else "", f"at commit {commit}" if commit else ""]
    note = f"It was run {' '.join(filter(None, said))}." if any(said) else ""
    return Html(tag("p", note, class_="note") + tag("pre", tag("code", command_line(run)), tabindex="0"))


def command_line(run: LocalRun) -> str:
    """The command that repeats the run, quoted for a POSIX shell; the new run gets a folder of its own."""
    if run.overrides is None:
        # Made without the command line (by a reproduction): its kept configuration is complete.
        return shlex.join(["dnc", f"--config-path={run.folder / '.hydra'}", "--config-name=config"])
    sources = (run.hydra.get("runtime") or {}).get("config_sources") or []
    folders = [source["path"] for source in sources if source["provider"] == "command-line"]
    return shlex.join(["dnc", *(f"--config-dir={folder}" for folder in folders), *run.overrides])


def citation(run: LocalRun) -> Html:
    """BibTeX of this software as the run used it, and of the papers it rests on."""
    found = run.summary.written.get("environment") or {}
    commit, torch = found.get("git_commit"), (found.get("versions") or {}).get("torch")
    parts = [f"protocol {run.protocol}", f"commit {commit}" if commit else "", f"PyTorch {torch}" if torch else ""]
    software = (
        "@software{deep_neural_collapse,\n  title = {Deep neural collapse, measured (deep-neural-collapse)},\n"
        f"  note  = {{{', '.join(filter(None, parts))}}}\n}}\n"
    )
    return tag("pre", tag("code", software + PAPERS), tabindex="0")
