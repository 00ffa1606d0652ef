"""Opening wandb runs: online or offline, new or continued, and never waiting long for a server.

Offline is what happens whenever online cannot be had: no key, a wrong one, no network, a server that does not answer.
wandb itself would prompt, or wait for a minute and more, so it is only asked when a server was seen to be there.

A run that is started again in its folder continues its wandb run, whose id stands in ``wandb/run.json``. Every
attempt mirrors the record from its first row, in the same order, and row k always goes to wandb's step k; hence

* online, the server says how many rows it has, and those are not sent again;
* offline, the new attempt's files contain everything the earlier ones do. Those stay on disk, marked (``*.synced``) so
  that ``wandb sync`` takes the new ones alone. If the earlier attempts have been uploaded, or were online, the new one
  gets an id of its own, because ``wandb sync`` would append its rows to theirs.
"""

import json
import logging
import math
import netrc
import os
import queue
import re
import secrets
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import wandb

from pipeline.runtime.files import atomic
from pipeline.storage.reading import Unreadable, json_of
from pipeline.storage.shapes import NULL
from pipeline.views.wandb.home import cache_folder

log = logging.getLogger(__name__)

IDENTITY = "run.json"
SUPERSEDED = "superseded by a later attempt at this run"
"""Content of the marker that keeps ``wandb sync`` from files whose rows a later attempt has; wandb's own is empty."""
OPENING, PROBE, CLOSING = 0.5, 0.2, 0.3
"""Shares of the patience: until all runs are open; is the server still there; closing. Together 1."""
OWN_SERVICE = 90.0
"""Seconds that wandb's own process, which writes offline runs, may take to start or to end on a busy machine."""


def open_runs(
    mode: str, folder: Path, name: str, suffixes: Sequence[str], patience: float, **arguments: Any
) -> list[wandb.Run]:
    """Open one run per suffix, all online or all offline.

    Args:
        mode: ``online`` or ``offline``; online falls back to offline, with one line that says why.
        folder: the run folder; wandb writes to ``folder/wandb``.
        name: what they are called.
        suffixes: appended to the runs' common id and name; "" for a run by itself.
        patience: seconds to wait for the server, opening and closing taken together.
        arguments: of ``wandb.init``; several runs without a ``group`` are given one.
    """
    with cache_folder():
        return _open_somewhere(mode, folder, name, suffixes, arguments, patience)


def _open_somewhere(
    mode: str, folder: Path, name: str, suffixes: Sequence[str], arguments: dict[str, Any], patience: float
) -> list[wandb.Run]:
    if mode == "online":
        try:
            deadline = time.monotonic() + OPENING * patience
            if reason := no_server(PROBE * patience):
                raise wandb.errors.UsageError(reason)
            return _open("online", folder, name, suffixes, arguments, patience, deadline)
        except wandb.errors.Error as error:
            log.warning("wandb: %s; tracking offline instead.", first_line(error))
    return _open("offline", folder, name, suffixes, arguments, patience)


def kept_group(folder: Path) -> str | None:
    """The group that an earlier attempt at the run in this folder was in."""
    try:
        return json_of(folder / "wandb" / IDENTITY, {"id": str, "group?": (str, NULL)}).get("group")
    except (OSError, Unreadable):
        return None


def is_offline(run: wandb.Run) -> bool:
    """Whether the run is only kept on disk."""
    return run.settings.mode == "offline"


def server_answers(patience: float) -> bool:
    """Whether the wandb server is there; asked before anything that would wait for it."""
    return _answers(wandb.setup().settings.base_url, PROBE * patience)


def close_runs(runs: Sequence[wandb.Run], exit_code: int) -> None:
    """Close all at once, so that they share the time the server is given."""
    if runs:
        with ThreadPoolExecutor(len(runs)) as pool:
            list(pool.map(lambda run: run.finish(exit_code=exit_code), runs))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _open(
    mode: str,
    folder: Path,
    name: str,
    suffixes: Sequence[str],
    arguments: dict[str, Any],
    patience: float,
    deadline: float = math.inf,
) -> list[wandb.Run]:
    directory = folder / "wandb"
    identity, earlier = _identity(directory, mode)
    if len(suffixes) > 1 and not arguments["group"]:
        arguments = arguments | {"group": identity}
    runs: list[wandb.Run] = []
    try:
        for suffix in suffixes:
            opening, closing = OWN_SERVICE, OWN_SERVICE
            if mode == "online":
                opening, closing = min(max(deadline - time.monotonic(), 0.1), OPENING * patience), CLOSING * patience
            own = {"id": f"{identity}{suffix}", "name": f"{name}{suffix.replace('-', ' ')}"}
            settings = wandb.Settings(
                silent=True,
                init_timeout=opening,
                finish_timeout=closing,
                save_code=False,
                disable_job_creation=True,
                x_transaction_log_flush_interval=1.0,  # what a kill may cost (wandb's default: 15 s)
            )
            resume = {"resume": "allow"} if mode == "online" else {}
            run = wandb.init(
                mode=mode, dir=str(folder), settings=settings, reinit="create_new", **own, **resume, **arguments
            )
            runs.append(run)
    except BaseException:
        close_runs(runs, exit_code=1)
        raise
    with atomic(directory / IDENTITY) as path:
        path.write_text(json.dumps({"id": identity, "group": arguments["group"]}) + "\n")
    for file in earlier:
        Path(f"{file}.synced").write_text(SUPERSEDED + "\n")
    return runs


def _identity(directory: Path, mode: str) -> tuple[str, list[Path]]:
    """The id to use, and files of earlier offline attempts, which the new attempt will contain."""
    if given := os.environ.get("WANDB_RUN_ID"):
        return given, []  # an agent of a sweep has registered the run
    try:
        identity = json_of(directory / IDENTITY, {"id": str})["id"]
    except (OSError, Unreadable):
        identity = ""
    if not re.fullmatch(r"[\w-]{1,64}", identity):  # or it would be a pattern for other people's files
        return secrets.token_hex(4), []
    files = sorted(directory.glob(f"*run-*-{identity}*/run-{identity}*.wandb"))
    offline = [file for file in files if file.parent.name.startswith("offline-")]
    uploaded = [file for file in offline if _is_uploaded(file)]
    if mode == "offline" and (uploaded or offline != files):
        identity = secrets.token_hex(4)
    return identity, [file for file in offline if file not in uploaded]


def _is_uploaded(file: Path) -> bool:
    marker = Path(f"{file}.synced")
    return marker.exists() and SUPERSEDED not in marker.read_text()


def no_server(seconds: float) -> str | None:
    """Why there is nobody to talk to; None if there is."""
    url = wandb.setup().settings.base_url
    if not _has_key(url):
        return "no API key found (WANDB_API_KEY or `wandb login`)"
    return None if _answers(url, seconds) else f"{url} does not answer"


def _has_key(url: str) -> bool:
    """Whether wandb will find credentials for the server at ``url``, where it would look for them."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE") or wandb.setup().settings.api_key:
        return True
    files = [Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()]
    if given := os.environ.get("NETRC"):
        files = [Path(given).expanduser()]
    for file in filter(Path.exists, files):
        try:
            return netrc.netrc(file).authenticators(urlsplit(url).netloc) is not None
        except (netrc.NetrcParseError, OSError):
            return False
    return False


def _answers(url: str, seconds: float) -> bool:
    """Whether anything at ``url`` speaks HTTP. In a thread, because looking up a name has no timeout of its own."""
    found: queue.Queue[bool] = queue.Queue()
    threading.Thread(target=_ask, args=(url, seconds, found.put), daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return False


def _ask(url: str, seconds: float, say: Callable[[bool], None]) -> None:
    try:
        with urllib.request.urlopen(url, timeout=seconds):
            say(True)
    except urllib.error.HTTPError:
        say(True)
    except (OSError, ValueError) as error:
        # Certificates are wandb's own business: it may know authorities that Python does not.
        say(isinstance(getattr(error, "reason", error), ssl.SSLError))
