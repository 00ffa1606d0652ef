"""scripts/local_slurm starts and stops one cluster, once, on the loopback interface, and nothing else."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from local_cluster import LOCAL_SLURM, local_slurm, until

STOPPED, WRONG = 3, 2


@pytest.fixture
def stopped(slurm):
    """The cluster for a test that stops it; started again afterwards."""
    yield slurm
    started = local_slurm("start", "--nodes", 2, "--port", slurm.port, slurm.folder)
    assert started.returncode == 0, started.stderr


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: it says that first")


def processes_of(folder: Path) -> set[str]:
    """Names of the processes (no zombies) that run in the cluster's environment, daemons and jobs alike."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            if f"SLURM_CONF={folder}/slurm.conf".encode() in variables:
                found.add((process / "comm").read_text().strip())
        except OSError:  # ended meanwhile
            continue
    return found


def sockets_of(pids: list[str]) -> set[str]:
    """Inodes of the sockets that processes hold open."""
    links = [os.readlink(file) for pid in pids for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()]
    return {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}


def test_every_daemon_listens_on_the_loopback_interface_only(slurm):
    pids = re.findall(r"pid (\d+)", local_slurm("status", slurm.folder).stdout)
    inodes = sockets_of(pids)
    addresses = []
    for name in ("tcp", "tcp6", "udp", "udp6"):
        rows = [line.split() for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
        waiting = [row for row in rows if row[9] in inodes and (row[3] == "0A" or name.startswith("udp"))]
        addresses += [row[1].split(":") for row in waiting]
    assert {address for address, _ in addresses} == {"0100007F"}
    assert {int(port, 16) for _, port in addresses} == set(range(slurm.port, slurm.port + 4))


def test_starting_a_running_cluster_leaves_it_as_it_is(slurm):
    before = local_slurm("status", slurm.folder)
    again = local_slurm("start", slurm.folder)
    assert again.returncode == 0 and "already running" in again.stdout
    after = local_slurm("status", slurm.folder)
    assert (before.returncode, after.returncode) == (0, 0)
    assert before.stdout == after.stdout and before.stdout.count("running, pid") == 6


def test_stopping_ends_jobs_and_daemons_and_can_be_repeated(stopped):
    stopped.ask("sbatch", "--output=/dev/null", "--wrap=sleep 600")
    everything = {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmstepd", "sleep"}
    until(lambda: everything <= processes_of(stopped.folder), "the job runs")
    for _ in range(2):
        assert local_slurm("stop", stopped.folder).returncode == 0
        assert processes_of(stopped.folder) == set()
        status = local_slurm("status", stopped.folder)
        assert status.returncode == STOPPED and "running" not in status.stdout


@pytest.mark.parametrize(("name", "elsewhere"), [("sleep", False), ("slurmctld", True)])
def test_a_pid_that_is_another_process_by_now_is_left_alone(name, elsewhere, tmp_path):
    need_root()
    shutil.copy(shutil.which("sleep"), tmp_path / name)
    cluster = tmp_path / "cluster"
    (cluster / "slurm").mkdir(parents=True)
    (cluster / "slurm.conf").touch()
    folder = tmp_path / "another" if elsewhere else cluster
    with subprocess.Popen([tmp_path / name, "600"], env={"SLURM_CONF": f"{folder}/slurm.conf"}) as bystander:
        (cluster / "slurm" / "slurmctld.pid").write_text(f"{bystander.pid}\n")
        assert local_slurm("status", cluster).returncode == STOPPED
        assert local_slurm("stop", cluster).returncode == 0
        assert bystander.poll() is None
        bystander.kill()


def test_a_cluster_that_lost_a_daemon_is_not_running_and_starts_again(slurm):
    pid = re.search(r"slurmd.node2: running, pid (\d+)", local_slurm("status", slurm.folder).stdout).group(1)
    subprocess.run(["kill", "-KILL", pid], check=True)
    until(lambda: local_slurm("status", slurm.folder).returncode == STOPPED, "status notices")
    assert local_slurm("start", "--nodes", 2, "--port", slurm.port, slurm.folder).returncode == 0
    assert local_slurm("status", slurm.folder).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["begin"], ("begin", "start, stop")),
        (["start", "--nodes", "0"], ("--nodes 0", ">= 1")),
        (["start", "--nodes", "99"], ("--nodes 99", "1..16")),
        (["start", "--gpus", "1"], ("--gpus", "--nodes")),
        (["start", "/tmp"], ("/tmp", "other files")),
        (["start", "/tmp/" + "x" * 90], ("80 characters",)),
        (["env", "/tmp/nothing-there"], ("/tmp/nothing-there", "local_slurm start")),
    ],
)
def test_bad_input_gets_one_sentence(arguments, parts, slurm):
    done = local_slurm(*arguments)
    assert done.returncode == WRONG and done.stdout == ""
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: ") and all(part in sentence for part in parts)


def test_a_taken_port_is_named_and_nothing_is_left(slurm, tmp_path):
    done = local_slurm("start", "--port", slurm.port - 1, tmp_path / "new")
    assert done.returncode == WRONG and f"port {slurm.port} is taken" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_starting_needs_root(slurm):
    script = shutil.copy(LOCAL_SLURM, slurm.folder)  # where anybody can read it
    done = subprocess.run(["runuser", "-u", "munge", "--", script, "start"], capture_output=True, text=True, timeout=60)
    assert done.returncode == WRONG and "needs root" in done.stderr and "munge" in done.stderr


def test_missing_packages_are_named_with_the_command_that_installs_them(tmp_path):
    need_root()
    # Every program but Slurm's, as links; the script adds the system's folders of daemons by itself.
    programs = {path.name: path for folder in ("/bin", "/usr/bin") for path in Path(folder).iterdir()}
    for name in set(programs) - {"sbatch"}:
        (tmp_path / name).symlink_to(programs[name])
    done = local_slurm("start", tmp_path / "new", env={"PATH": str(tmp_path)})
    assert done.returncode == WRONG
    assert re.fullmatch(r"error: \S+ is not installed; run: scripts/local_slurm install\n", done.stderr)
