"""Command lines of all kinds, drawn from the schema: most are wrong in one way or another."""

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass

from hypothesis import strategies as st

from pipeline.config import choices_of, conf_folder
from pipeline.config.schema import Config
from pipeline.dufm.objectives import known_objectives


def _words(text: str) -> list[str]:
    return text.split()


NUMBERS = [
    "0",
    "-1",
    "-0",
    "+1",
    "1",
    "2",
    "3",
    "7",
    "1.0",
    "2.5",
    ".5",
    "1.",
    "1e-3",
    "1E3",
    "1_000",
    "0x10",
    "0b1",
    "1e400",
    "-1e400",
    "1e-400",
    "nan",
    "NaN",
    "-nan",
    "inf",
    "-inf",
    "5e-324",
    "1.7976931348623157e308",
    "2147483648",
    "4294967296",
    "9007199254740993",
    "9223372036854775808",
    "100000000000",
    "1e12",
]
NUMBERS += ["1" + "0" * 30, "9" * 400, "9" * 5000, "1" + "0" * 400 + ".0"]
KINDS = [
    "true",
    "false",
    "null",
    "???",
    "abc",
    "None",
    "''",
    '""',
    "[]",
    "{}",
    "[1]",
    "[1,2]",
    "[1,2,3,4]",
    "[[1]]",
    "[[],[]]",
    "{a:1}",
    "{a:{b:[1,2]}}",
    "[{a:1}]",
    "[null]",
    "[true,false]",
    "[nan,1]",
    "[1,a]",
    "[0.1,inf]",
    "{1:2}",
    "{null:null}",
    "[0,1]",
    "[a,b]",
    "[0,0]",
    "['','']",
    "[[[[[[1]]]]]]",
]
INTERPOLATIONS = [
    "${head.width}",
    "${nowhere}",
    "${seed}",
    "${head}",
    "${data.name}",
    "${.}",
    "${..seed}",
    "${",
    "}",
    "${}",
    "${",
    "${",
    "$",
    "${oc.env:HOME}",
    "${oc.env:WANDB_API_KEY}",
    "${oc.env:SET_NOWHERE}",
    "${oc.env:SET_NOWHERE,3}",
    "${oc.decode:1}",
    "${now:%Y}",
    "${now:%H:%M}",
    "${hydra:run.dir}",
    "${hydra:runtime.output_dir}",
    "${no.such:x}",
    "${oc.${data.name}:HOME}",
    "${dnc_help:}",
    "${backbone}",
    "[${seed},${nowhere}]",
    "{a:${seed}}",
    "${oc.create:{a:1}}",
    "${descent.steps}",
    "${protocol.name}",
]
TEXTS = [
    *("a b", "'it is'", '"a b"', "'", '"', "'a", "a'b", "\\", "\\'", "a\\nb", "a\nb", "'a\nb'", "\t", " ", "  3 "),
    *("é", "'日本語'", "日本語", "\u202e", "'\u2028'", "\x7f", "\x1b[31m", "😀", "a\0b", "\udcff", "'\udcff'", "ﬁ"),
    *("%s%d", "%", "--", "-x", "*", "a=b", "=", "a,b", "1,2", ",", "a:b", ":", "@", "#", "~", "~/x", "~nobody/x", "~~"),
    *("range(3)", "choice(1,2)", "glob(*)", "interval(0,1)", "shuffle(1,2)", "int(3)", "float(x)", "str(1)", "bool(2)"),
    *("sort(3,1)", "tag(x)", "f()", "range(1,1000000)", "(", ")", "x" * 3000, "[" * 40, "[" * 3000, "{a:" * 200),
    *(
        "os.system",
        "builtins.exec",
        "torch.nn.Linear",
        "torch.nn.Module",
        "torch.nn.ReLU",
        "torchvision.models.resnet18",
    ),
    *("nothing.at.all", "a.b", "..", "sys.exit", "math.pi", "pipeline.cli.app.ValidateFirst", "torch.nn.Identity"),
    *("resnet10t", "resnet18.a1_in1k", "resnet18.", "vit_tiny_patch16_224", "test_vit", "efficientnet_b99"),
    *("mse", "relu", "dufm", "frozen_features", "digits", "cpu", "gpu", "tf32", "float32", "free", "online"),
]
PATHS = [
    *("nowhere/at/all", "'a file'", "'a file/x'", "'a folder'", "'a pipe'", "'a run'", "/dev/null", "/dev/zero", "/"),
    *("/dev/full", "/dev/null/x", "a" * 300, "a/" * 2500, ".", "..", "'.../-x'", "-rf", "'ü n/\u202e'", "100%", "''"),
    *(
        "'a\nb'",
        "/proc/self/x",
        "/proc/1",
        "/sys/x",
        "'a folder/../b'",
        "//x",
        "'a file/..'",
        "new",
        "'new one/of two'",
    ),
]
HYDRA = [
    "hydra.callbacks.x._target_=os.system",
    "hydra.callbacks.validate._target_=os.system",
    "~hydra.callbacks",
    "~hydra",
    "hydra.callbacks={}",
    "hydra.callbacks=null",
    "+hydra.callbacks.x={_target_:os.system}",
    "hydra.sweeper._target_=os.system",
    "hydra.launcher._target_=os.system",
    "hydra/launcher=basic",
    "hydra/launcher=nothing",
    "hydra/sweeper=basic",
    "hydra.mode=RUN",
    "hydra.verbose=true",
    "hydra.verbose=[pipeline]",
    "hydra.job.name=x",
    "hydra.job.chdir=true",
    "hydra.output_subdir=x",
    "hydra.job_logging.handlers.console.class=os.system",
    "hydra/job_logging=none",
    "hydra/job_logging=nothing",
    "hydra/hydra_logging=none",
    "hydra.searchpath=[file://nowhere]",
    "hydra.searchpath=x",
    "hydra=x",
    "+hydra.x=1",
    "hydra.launcher.x=1",
    "hydra.launcher=${backbone}",
    "+hydra.sweeper.x=${backbone}",
    "+backbone@hydra.callbacks.x=custom",
    "hydra.help.template=x",
    "hydra.runtime.cwd=x",
    "backbone@hydra=custom",
    "+hydra.launcher.x={_target_:os.system}",
    "hydra/callbacks=x",
    "hydra.sweep.dir=x",
    "hydra.sweep.subdir=x",
    "hydra.run={dir:x}",
    "hydra.run=null",
    "hydra.run.dir=null",
    "hydra.run.dir=[x]",
    "hydra.run.dir={a:1}",
    "hydra.run.dir=???",
    "hydra.job=null",
    "hydra.job.num=x",
    "hydra.run.dir",
    "hydra.run.dir=1",
    "++hydra.run.dir=x",
    "~hydra.run.dir",
    "+hydra.run.dir=x",
]
NOISE = [
    "",
    " ",
    "=",
    "==",
    "+",
    "++",
    "~",
    "+=",
    "~=1",
    "a",
    "a.b",
    ".a=1",
    "a.=1",
    "a..b=1",
    "[=1",
    "head",
    "head.",
    "@",
]
NOISE += [
    "head=",
    "/=1",
    "a/b=c",
    "head/relu=x",
    "head@x=relu",
    "+data=mnist",
    "data@data2=mnist",
    "~data",
    "~head=relu",
]
NOISE += [
    "schema=x",
    "~schema",
    "experiment=../main",
    "+experiment=e1",
    "data=../../README",
    "data=/etc/passwd",
    "data=..",
]
NOISE += ["data=[mnist,digits]", "data={a:1}", "defaults=[]", "+defaults=[data]", "_self_=1", "backbone=\udcff", "é=1"]
FLAGS = [
    "--help",
    "--cfg=job",
    "--cfg=all",
    "--cfg=x",
    "--info",
    "--info=x",
    "--hydra-help",
    "--version",
    "--resolve",
    "--config-dir=nowhere",
    "--config-dir",
    "--config-name=nothing",
    "--config-path=nowhere",
    "--package=x",
    "--experimental-rerun=x",
    "--e=x",
    "-sc",
    "-m",
    "-x",
    "--",
    "-",
    "-c",
    "--shell-completion",
    "--run",
    "--multirun",
    "--multirun=x",
    "-h",
    "-hm",
    "--c=job",
]
SHOWN = ("--help", "--cfg", "--info", "--hydra-help", "--version", "--c", "-h", "-sc", "--shell", "--i")
"""Flags with which nothing is run."""


def knobs(node: object = None, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Every knob of the schema by its key."""
    node = Config() if node is None else node
    for entry in fields(node):
        value = getattr(node, entry.name)
        if is_dataclass(value):
            yield from knobs(value, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", entry


KNOBS = dict(knobs())
GROUPS = {
    group.name: sorted(file.stem for file in group.glob("*.yaml"))
    for group in conf_folder().iterdir()
    if group.is_dir() and group.name != "hydra"
}


def fitting(key: str, entry: Field) -> st.SearchStrategy[str]:
    """Values that a knob may have, but for what depends on others."""
    if choices_of(entry):
        return st.sampled_from(choices_of(entry))
    limits, kind = entry.metadata, str(getattr(entry.type, "__name__", entry.type))
    if kind.startswith("int"):
        low = limits.get("ge", 0)
        return st.integers(low, min(limits.get("le", low + 40), low + 40)).map(str)
    if kind.startswith("float") or key == "head.weight_decay":
        low = limits.get("ge", limits.get("gt", 0))
        return st.floats(low, limits.get("lt", low + 2), exclude_min="gt" in limits, exclude_max="lt" in limits).map(
            repr
        )
    if kind == "bool" and key not in ("data.download", "backbone.pretrained"):
        return st.sampled_from(["true", "false"])
    if kind.startswith("list[int]"):
        return st.lists(st.integers(1, 40), min_size=1, max_size=3).map(lambda widths: str(widths).replace(" ", ""))
    return st.sampled_from(["abc", "null", "[0,1]"])


def any_value() -> st.SearchStrategy[str]:
    """The right-hand side of an argument, as it is typed."""
    drawn = st.one_of(st.integers(), st.floats(), st.text(max_size=20), st.lists(st.integers(), max_size=5)).map(str)
    return st.one_of(*map(st.sampled_from, (NUMBERS, KINDS, INTERPOLATIONS, TEXTS, PATHS)), drawn)


@st.composite
def wrong(draw: st.DrawFn) -> str:
    """One argument that is rarely right."""
    kind = draw(st.sampled_from(["knob"] * 8 + ["form", "group", "path", "hydra", "noise"]))
    key = draw(st.sampled_from(sorted(KNOBS)))
    value = draw(any_value())
    if kind == "knob":
        return f"{key}={value}"
    if kind == "form":
        form = draw(
            st.sampled_from(["+{}={}", "++{}={}", "~{}", "~{}={}", "{}", "{}x={}", "x{}={}", "{}.x={}", "+{}.x={}"])
        )
        return form.format(key, value)
    if kind == "group":
        return f"{draw(st.sampled_from(sorted(GROUPS)))}={value}"
    if kind == "path":
        keys = ["data.root", "backbone.checkpoint", "backbone.from_run", "hydra.run.dir", "hydra.sweep.dir"]
        return f"{draw(st.sampled_from(keys))}={draw(st.sampled_from(PATHS))}"
    return draw(st.sampled_from(HYDRA if kind == "hydra" else NOISE))


@st.composite
def right(draw: st.DrawFn) -> str:
    """One argument that is right by itself."""
    if draw(st.booleans()):
        group = draw(st.sampled_from(sorted(GROUPS)))
        return f"{group}={draw(st.sampled_from(GROUPS[group]))}"
    key = draw(st.sampled_from(sorted(KNOBS)))
    return f"{key}={draw(fitting(key, KNOBS[key]))}"


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Some right arguments, up to two wrong ones, rarely a flag; now and then something is said twice."""
    arguments = draw(st.lists(right(), max_size=3)) + draw(st.lists(wrong(), max_size=2))
    extra = draw(st.sampled_from(["none"] * 17 + ["flag", "twice", "multirun"]))
    if extra == "flag":
        arguments.append(draw(st.sampled_from(FLAGS)))
    elif extra == "twice":
        arguments += arguments[:1]
    elif extra == "multirun":
        arguments += [
            "--multirun",
            draw(st.sampled_from(["seed=0,1", "head.width=8,0", "head=relu,linear", "seed=0,x"])),
        ]
    return draw(st.permutations(arguments)) if extra == "none" else arguments


def _one_of(*values: object) -> st.SearchStrategy:
    return st.sampled_from(values)


SIZES = {
    "seed": st.integers(0, 2**32 - 1),
    "record.figures": st.booleans(),
    "head.depth": st.integers(1, 4),
    "head.width": st.integers(1, 8),
    "head.activation": _one_of("relu", "linear"),
    "head.inputs": _one_of("free", "frozen"),
    "head.loss": _one_of(*known_objectives()),
    "head.weight_decay": st.floats(1e-5, 2, exclude_min=True),
    "head.feature_decay": _one_of(1e-30, 1e-6, 1e-3, 0.1, 10.0, 1e30),
    "head.init_scale": _one_of(1e-30, 1e-3, 1.0, 100.0, 1e30),
    "descent.steps": st.integers(1, 50),
    "descent.seeds": st.integers(1, 3),
    "descent.lr": _one_of(1e-30, 1e-3, 0.1, 0.5, 1e3, 1e30),
    "descent.momentum": _one_of(0.0, 0.9),
    "descent.precision": _one_of("float64", "float32"),
    "descent.records_per_decade": st.integers(1, 4),
    "stop_when_collapsed": _one_of("true", "false"),
    "verdict.dnc1": _one_of(1e-30, 0.1, 1e30),
}
FREE = {
    "protocol.num_classes": st.integers(2, 5),
    "protocol.samples_per_class": st.integers(1, 5),
    "protocol.num_features": st.integers(1, 8),
    "protocol.features": _one_of("random", "balanced"),
}
TRAINED = {
    "protocol": _one_of("frozen_features", "end_to_end", "fixed_head"),
    "protocol.regularization": _one_of("standard", "dufm"),
    "protocol.solution": _one_of("descent", "constructed"),
    "data.samples_per_class": st.integers(1, 6),
    "data.classes": _one_of("[0,1]", "[7,2,5]"),
    "data.augment": _one_of("none", "crop_flip"),
    "backbone.hidden": _one_of("[4]", "[8,6]", "[1]"),
    "backbone.epochs": st.integers(0, 1),
    "backbone.batch_size": st.integers(1, 9),
    "optimizer": _one_of("sgd", "adamw"),
    "optimizer.lr": _one_of(1e-30, 0.05, 1e3, 1e30),
    "optimizer.schedule": _one_of("cosine", "constant"),
}


@st.composite
def small_runs(draw: st.DrawFn) -> list[str]:
    """Runs of a second, within the schema's limits, at the ends of them now and then; some diverge."""
    trains = draw(st.booleans())
    values = draw(st.fixed_dictionaries(SIZES | (TRAINED if trains else FREE)))
    return ["logger=none", *([] if trains else ["protocol=dufm"]), *(f"{key}={value}" for key, value in values.items())]
