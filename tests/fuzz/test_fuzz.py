"""Whatever is typed, the command either does it or says in one sentence why not, and never hangs or leaves half a run.

Every example is a process of its own (`running/server.py`). FUZZ_EXAMPLES asks for another number of them, drawn anew.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import Done, commands, content
from hypothesis import HealthCheck, example, given, settings
from strategies import KNOBS, SHOWN, command_lines, small_runs

from pipeline.cli.app import EXIT_BAD_CONFIG, EXIT_FAILED
from pipeline.config import choices_of

ASKED = os.environ.get("FUZZ_EXAMPLES")
EXAMPLES = int(ASKED or 80)
"""Command lines; with two or three overrides each, 200 and more of those (the last test counts them)."""
GENERATED: list[int] = []


def examples(count: int) -> settings:
    """So many, the same each time unless more were asked for; their time is limited by being killed, not by a clock."""
    return settings(
        max_examples=count, deadline=None, derandomize=not ASKED, database=None, suppress_health_check=list(HealthCheck)
    )


@contextmanager
def place() -> Iterator[Path]:
    """A folder with what paths may meet."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a file").write_text("text")
        (folder / "a folder").mkdir()
        (folder / "a run").mkdir()
        (folder / "a run" / "summary.json").write_text('{"status": "completed"}')
        os.mkfifo(folder / "a pipe")
        yield folder


def check_refusal(done: Done) -> None:
    """One sentence; of a sweep the last line, because Hydra tells first which of its jobs it was."""
    *before, sentence = done.err.splitlines() or [""]
    assert sentence.startswith("error: ") and sentence.endswith("."), done.err
    assert sentence.isprintable() and len(sentence) < 2100
    assert "Traceback" not in done.err + done.out
    assert not before or all("Error executing job with overrides" in line or not line for line in before), done.err


def check_values(config: dict) -> None:
    """What passed is within the limits that the schema states, checked here by other means than there."""
    for key, entry in KNOBS.items():
        value = config
        for part in key.split("."):
            value = value[part]
        if value is None:
            continue
        if choices_of(entry):
            assert set(value if isinstance(value, list) else [value]) <= set(choices_of(entry)), key
        limits = entry.metadata
        for number in value if isinstance(value, list) else [value]:
            assert "gt" not in limits or limits["gt"] < number < float("inf"), key
            assert "ge" not in limits or limits["ge"] <= number < float("inf"), key
            assert "lt" not in limits or number < limits["lt"], key
            assert "le" not in limits or number <= limits["le"], key


@examples(EXAMPLES)
@given(command_lines())
@example(["head.width=" + "9" * 5000])
@example(["head.width=" + "9" * 400, "protocol=dufm"])
@example(["head.width=1000000000000"])
@example(["head.depth=1000", "protocol=fixed_head"])
@example(["descent.seeds=1000000000", "protocol=dufm"])
@example(["protocol.samples_per_class=1000000000000", "protocol=dufm"])
@example(["backbone.hidden=[1000000000,1000000000]"])
@example(["data.image_size=1000000"])
@example(["trainer.threads=1000000000"])
@example(["descent.records_per_decade=1000000000"])
@example(["optimizer.lr=1e300"])
@example(["head.weight_decay=" + "[" * 3000])
@example(["logger.project=a\udcffb"])
@example(["logger.project=a\0b"])
@example(["logger.group='a\nb'", "head.inputs='a\nb'"])
@example(["data.root='a\u2028b'", "data=mnist"])
@example(["backbone=${dnc_help:}"])
@example(["hydra.run.dir="])
@example(["hydra.run.dir=null"])
@example(["hydra.run.dir='a file/x'"])
@example(["hydra.run.dir=/dev/null/x"])
@example(["hydra.run.dir=/proc/x"])
@example(["hydra.run.dir=" + "a" * 300])
@example(["data=mnist", "data.root=" + "a" * 300])
@example(["data=mnist", "data.root='~nobody/x'"])
@example(["backbone.checkpoint='a pipe'"])
@example(["backbone.checkpoint=/dev/zero"])
@example(["backbone.from_run=" + "a" * 300])
@example(["experiment=../main"])
@example(["backbone._target_=abc", "hydra.searchpath=[file://nowhere]"])
@example(["hydra.searchpath=[file://nowhere]"])
@example(["--frobnicate"])
@example(["--config-dir"])
@example(["--experimental-rerun=x"])
def test_every_command_line_is_run_or_refused_in_one_sentence_that_leaves_nothing(arguments):
    GENERATED.append(len(arguments))
    with place() as folder:
        before = content(folder)
        done = commands().run(*arguments, folder=folder, execute=False)
        after = content(folder)
    assert done.code is not None, f"killed: {done.err}"
    assert done.code in (0, EXIT_BAD_CONFIG), done.err
    sweep = "--multirun" in arguments or "-m" in arguments
    if done.code == EXIT_BAD_CONFIG:
        check_refusal(done)
        assert sweep or (after == before and not done.ran)
    elif not sweep and not any(argument.startswith(SHOWN) for argument in arguments):
        assert len(done.ran) == 1 and "Traceback" not in done.err
    for config in done.ran:
        check_values(config)


SMALLEST = "protocol=dufm head.depth=1 head.width=1 descent.steps=1"
SMALLEST += " protocol.samples_per_class=1 protocol.num_features=1"


@examples(max(1, EXAMPLES // 13))
@given(small_runs())
@example(["logger=none", *SMALLEST.split(), "head.init_scale=1e-30", "verdict.dnc1=1e-30"])  # every dnc2 is infinite
def test_every_small_run_completes_or_says_in_one_sentence_why_not(arguments):
    with place() as folder:
        before = content(folder)
        done = commands().run(*arguments, "hydra.run.dir=out", folder=folder)
        assert done.code in (0, EXIT_FAILED, EXIT_BAD_CONFIG), f"{done.code}: {done.err}"
        if done.code == EXIT_BAD_CONFIG:
            check_refusal(done)
            assert content(folder) == before
            return
        summary = json.loads((folder / "out" / "summary.json").read_text())
        if done.code == EXIT_FAILED:
            assert done.err.splitlines()[-1].startswith("error: ") and "Traceback" not in done.err, done.err
            assert summary["status"] == "failed"
        else:
            assert summary["status"] == "completed"
            assert (folder / "out" / "record.csv").stat().st_size > 0


def test_two_hundred_overrides_and_more_were_tried():
    assert not GENERATED or sum(GENERATED) >= (200 if EXAMPLES >= 80 else 0)
