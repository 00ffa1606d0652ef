"""What users install: a wheel that carries its configuration, and scripts that set up by themselves."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
"""An environment in which only what is installed can be imported."""


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=CLEAN | environment, timeout=300)


def said(*command: object, cwd: Path) -> str:
    """What a command prints that succeeds."""
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The bin folder of a new environment that holds the built wheel; dependencies are read from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, REPO], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    # A path in a .pth file serves imports but its own .pth files are not read: the checkout stays out of sight.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run([*pip, "--python", folder / "env", "install", "--no-deps", wheel], check=True)
    return folder / "env" / "bin"


def test_the_wheels_command_finds_its_configuration_from_any_folder(installed, tmp_path):
    code = "import pipeline.config as c; print(c.conf_folder()); print(c.__file__)"
    found = said(installed / "python", "-c", code, cwd=tmp_path).splitlines()
    assert all(Path(path).is_relative_to(installed.parent) for path in found)
    assert "name: frozen_features" in said(installed / "dnc", "--cfg", "job", cwd=tmp_path)


def test_the_wheels_command_runs_and_equals_python_dash_m(installed, tmp_path):
    arguments = ["protocol=dufm", "descent.steps=5", "descent.seeds=1", "logger=none", "record.figures=false"]
    for name, command in (("a", [installed / "dnc"]), ("b", [installed / "python", "-m", "pipeline"])):
        said(*command, *arguments, f"hydra.run.dir={name}", cwd=tmp_path)
    assert (tmp_path / "a" / "record.csv").read_bytes() == (tmp_path / "b" / "record.csv").read_bytes()


def test_the_wheel_holds_the_package_and_its_configuration_only(installed):
    site = next(installed.parent.glob("lib/python*/site-packages"))
    assert (site / "pipeline" / "conf" / "main.yaml").is_file()
    expected = {path.relative_to(REPO / "conf") for path in (REPO / "conf").rglob("*.yaml")}
    assert {
        path.relative_to(site / "pipeline" / "conf") for path in (site / "pipeline/conf").rglob("*.yaml")
    } == expected
    assert not (site / "tests").exists() and not (site / "conf").exists()


@pytest.fixture(scope="module")
def fake_checkout(tmp_path_factory) -> Path:
    """A checkout whose environment the test sets up that is first to run something in it."""
    return fake(tmp_path_factory.mktemp("fake"))


def fake(folder: Path) -> Path:
    """The scripts beside a stand-in project, so that setting up takes a second instead of minutes."""
    root = folder / "a checkout"
    shutil.copytree(REPO / "scripts", root / "scripts")
    (root / "constraints.txt").write_text("")
    (root / "pyproject.toml").write_text(
        '[project]\nname = "standin"\nversion = "1"\n[project.optional-dependencies]\ntest = []\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    # The smallest build backend there is: it counts its calls.
    (root / "backend.py").write_text(
        "import pathlib, zipfile\n"
        "def build_editable(folder, settings=None, metadata=None):\n"
        "    calls = pathlib.Path('installs.txt')\n"
        "    calls.write_text(calls.read_text() + 'x' if calls.exists() else 'x')\n"
        "    name = 'standin-1-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(pathlib.Path(folder) / name, 'w') as wheel:\n"
        "        wheel.writestr('standin.pth', str(pathlib.Path.cwd()))\n"
        "        info = 'standin-1.dist-info/'\n"
        "        metadata = 'Metadata-Version: 2.1\\nName: standin\\nVersion: 1\\nProvides-Extra: test\\n'\n"
        "        wheel.writestr(info + 'METADATA', metadata)\n"
        "        wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        wheel.writestr(info + 'RECORD', '')\n"
        "    return name\n"
    )
    (root / "pipeline").mkdir()
    (root / "pipeline" / "__init__.py").write_text("")
    (root / "pipeline" / "__main__.py").write_text("import os, sys; print(os.getcwd(), sys.argv[1:])")
    return root


def run_script(root: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return run(root / "scripts" / "run", *arguments, cwd=cwd, **environment)


def test_scripts_run_sets_up_once_and_passes_arguments_on_from_any_folder(fake_checkout, tmp_path):
    first = run_script(fake_checkout, "data.classes=[a b,c]", "x=1", cwd=tmp_path)
    assert first.stdout.strip() == f"{tmp_path} ['data.classes=[a b,c]', 'x=1']", first.stderr
    second = run_script(fake_checkout, cwd=fake_checkout)
    assert second.stdout.strip() == f"{fake_checkout} []" and second.stderr == ""
    assert (fake_checkout / "installs.txt").read_text() == "x"
    (fake_checkout / "constraints.txt").write_text("# changed\n")
    run_script(fake_checkout, cwd=tmp_path)
    assert (fake_checkout / "installs.txt").read_text() == "xx"


def test_scripts_run_what_is_theirs_whatever_lies_in_the_working_directory(fake_checkout, tmp_path):
    (tmp_path / "pipeline.py").write_text("print('the code of the user')")
    found = run_script(fake_checkout, "seed=1", cwd=tmp_path, PYTHONPATH=".")
    assert found.stdout.strip() == f"{tmp_path} ['seed=1']", found.stderr


def test_scripts_run_is_clear_about_a_missing_or_old_python(tmp_path):
    tools, fake_checkout = tmp_path / "bin", fake(tmp_path)
    tools.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "env", "flock"):
        (tools / name).symlink_to(shutil.which(name))
    missing = run_script(fake_checkout, cwd=tmp_path, PATH=str(tools))
    assert missing.returncode == 1 and missing.stderr.strip().startswith("error: Python 3.11 or newer is needed")
    assert "none" in missing.stderr and not (fake_checkout / ".venv").exists()
    old = tools / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\nexit 1\n')
    old.chmod(0o755)
    refused = run_script(fake_checkout, cwd=tmp_path, PATH=str(tools))
    assert refused.returncode == 1 and "python3 is Python 3.9.2" in refused.stderr
