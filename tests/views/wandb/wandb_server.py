"""A wandb server on loopback that speaks as much of the protocol as a client needs, and keeps what arrives.

GraphQL operations are told apart by name; those it does not know are answered with no data, which clients take for a
server that is older than they are. Lines of a run's files are kept by the offset the client gives them.
"""

import base64
import gzip
import json
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from typing import Any

import yaml

KEY = "0123456789abcdef" * 2 + "01234567"
"""The one key it lets in (40 hexadecimal digits, as real ones)."""
AUTHORIZATION = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()
ENTITY = "loopback"
STAMP = "2025-01-01T00:00:00Z"


@dataclass
class Arrived:
    """One run as the server knows it."""

    upserts: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    files: dict[str, bytes] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows of the history in the order of their offsets."""
        return [json.loads(line) for _, line in sorted(self.lines["wandb-history.jsonl"].items())]

    @property
    def summary(self) -> dict[str, Any]:
        """The last summary sent."""
        lines = self.lines["wandb-summary.json"]
        return json.loads(lines[max(lines)]) if lines else {}

    @property
    def config(self) -> dict[str, Any]:
        """The last configuration sent: key -> value."""
        texts = [upsert["config"] for upsert in self.upserts if upsert.get("config")]
        return {key: entry["value"] for key, entry in json.loads(texts[-1]).items()}

    def said(self, name: str) -> Any:
        """The latest value the client gave for ``name`` (``groupName``, ``jobType``, ``tags``, ...)."""
        return next((upsert[name] for upsert in reversed(self.upserts) if upsert.get(name) is not None), None)


class WandbServer:
    """What arrived: ``runs`` by id, ``views`` (workspaces and reports), ``artifacts`` and which of them were ``used``,
    ``sweeps``, ``alerts``, ``operations``."""

    def __init__(self, port: int = 0) -> None:
        self.runs: dict[str, Arrived] = defaultdict(Arrived)
        self.views: list[dict[str, Any]] = []
        self.artifacts: list[dict[str, Any]] = []
        self.sweeps: list[dict[str, Any]] = []
        self.used: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        self.points: Iterator[tuple[int, dict[str, Any]]] = iter(())
        self.program = ""
        self.operations: list[str] = []
        self.unknown: dict[str, str] = {}
        self.lock = threading.Lock()
        self.arrived = threading.Condition(self.lock)
        self.http = Listener(("127.0.0.1", port), type("Handler", (Handler,), {"server_state": self}))

    def start(self) -> None:
        """Answer requests, in a thread."""
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Close the port; what arrived stays readable."""
        self.http.shutdown()
        self.http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that send a client here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    @property
    def only_run(self) -> Arrived:
        (run,) = self.runs.values()
        return run

    def wait_for_rows(self, count: int, seconds: float = 60.0) -> None:
        """Return as soon as that many rows of history have arrived."""
        with self.arrived:
            enough = self.arrived.wait_for(
                lambda: sum(len(run.lines["wandb-history.jsonl"]) for run in list(self.runs.values())) >= count, seconds
            )
        assert enough, f"fewer than {count} rows arrived within {seconds} s"

    def answer(self, operation: str, variables: dict[str, Any], query: str) -> dict[str, Any]:
        """The ``data`` of a GraphQL operation."""
        self.operations.append(operation)
        known = getattr(self, f"_{operation}", None)
        if known is None:
            self.unknown[operation] = query
            return {}
        return known(variables)

    def _Viewer(self, variables: dict[str, Any]) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        return {"viewer": {"id": "VXNlcjox", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": teams}}

    _GetDefaultEntity = _Viewer

    def _RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        if name not in self.runs or not self.runs[name].upserts:
            return {"model": {"id": "UHJvamVjdDox", "name": variables["project"], "bucket": None}}
        run = self.runs[name]
        history = [line for _, line in sorted(run.lines["wandb-history.jsonl"].items())]
        bucket = {
            "id": name,
            "name": name,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.said("displayName"),
            "logLineCount": len(run.lines["output.log"]),
            "historyLineCount": len(history),
            "eventsLineCount": len(run.lines["wandb-events.jsonl"]),
            "historyTail": json.dumps(history[-1:]),
            "eventsTail": "[]",
            "config": run.said("config") or "{}",
            "tags": run.said("tags") or [],
            "wandbConfig": '{"t":{}}',
        }
        return {"model": {"id": "UHJvamVjdDox", "name": variables["project"], "bucket": bucket}}

    def _UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"] or variables["id"]
        self.runs[name].upserts.append(variables)
        project = {"id": "UHJvamVjdDox", "name": variables.get("project") or "p", "entity": {"id": "e", "name": ENTITY}}
        bucket = {
            "id": name,
            "name": name,
            "displayName": variables.get("displayName") or name,
            "config": variables.get("config"),
            "project": project,
            "historyLineCount": len(self.runs[name].lines["wandb-history.jsonl"]),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": len(self.runs[name].upserts) == 1}}

    def _CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables["run"]
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{run}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def _ArtifactType(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.artifacts.append({"files": {}, **variables["input"]})
        artifact = {
            "id": str(len(self.artifacts) - 1),
            "state": "PENDING",
            "artifactSequence": {"latestArtifact": None},
        }
        return {"createArtifact": {"artifact": artifact}}

    def _CreateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        file = {"id": "f", "uploadUrl": self._upload(variables["artifactID"], "manifest"), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": variables["artifactID"], "file": file}}}

    def _UpdateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        identity = variables["artifactManifestID"]
        file = {"id": "f", "uploadUrl": self._upload(identity, "manifest"), "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": identity, "file": file}}}

    def _CreateArtifactFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for file in variables["input"]["artifactFiles"]:
            identity = file["artifactID"]
            url = self._upload(identity, file["name"])
            node = {"storagePath": None, "uploadUrl": url, "uploadHeaders": [], "artifact": {"id": identity}}
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        identity = variables["artifactID"]
        return {"commitArtifact": {"artifact": {"id": identity, "digest": self.artifacts[int(identity)]["digest"]}}}

    def _upload(self, artifact: str, name: str) -> str:
        return f"{self.url}/artifact/{artifact}/{name}"

    def _UseArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.used.append(variables)
        return {"useArtifact": {"artifact": {"id": variables["input"]["artifactID"]}}}

    def _NotifyScriptableRunAlert(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.alerts.append(variables)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _UpsertView2(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.views.append(variables)
        return {"upsertView": {"view": {"id": "Vmlldzox", "name": variables["name"]}, "inserted": True}}

    def _ProjectInternalId(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"id": "UHJvamVjdDox", "internalId": "UHJvamVjdEludGVybmFsSWQ6MQ=="}}

    def _UpsertSweep(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.sweeps.append(variables)
        project = {"id": "UHJvamVjdDox", "name": variables["projectName"], "entity": {"id": "e", "name": ENTITY}}
        return {"upsertSweep": {"sweep": {"name": "sweep1", "project": project}, "configValidationWarnings": []}}

    def _SweepWithRuns(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"sweep": {"name": variables["sweep"], "runs": {"edges": []}, **self.sweeps[-1]}}}

    def _CreateAgent(self, variables: dict[str, Any]) -> dict[str, Any]:
        content = yaml.safe_load(self.sweeps[-1]["config"])
        values = {name: entry["values"] for name, entry in content["parameters"].items()}
        self.points = enumerate(dict(zip(values, point, strict=True)) for point in product(*values.values()))
        self.program = content["program"]
        return {"createAgent": {"agent": {"id": "agent1"}}}

    def _Heartbeat(self, variables: dict[str, Any]) -> dict[str, Any]:
        """To an agent that runs nothing: the next point of the grid, or that there is none."""
        commands: list[dict[str, Any]] = []
        if not json.loads(variables["runState"]):
            number, point = next(self.points, (None, {}))
            args = {name: {"value": value} for name, value in point.items()}
            run = {"type": "run", "run_id": f"point{number}", "program": self.program, "args": args}
            commands = [{"type": "exit"} if number is None else run]
        return {"agentHeartbeat": {"agent": {"id": variables["id"]}, "commands": json.dumps(commands)}}

    def _GetProjects(self, variables: dict[str, Any]) -> dict[str, Any]:
        page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
        node = {"__typename": "Project", "id": "UHJvamVjdDox", "name": "p", "entityName": ENTITY, "createdAt": STAMP}
        node |= {"isBenchmark": False, "user": None}
        return {"models": {"pageInfo": page, "edges": [{"node": node}]}}

    def _upsertView(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.views.append(variables)
        project = {"id": "UHJvamVjdDox", "name": variables["projectName"], "entityName": variables["entityName"]}
        kept = {name: variables[name] for name in ("type", "name", "displayName", "description", "spec")}
        view = {"id": "Vmlldzoy", "updatedAt": STAMP, "project": project, **kept}
        return {"upsertView": {"view": view, "inserted": True}}


class Listener(ThreadingHTTPServer):
    """Clients may hang up in the middle of a request; that is no error here."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Routes requests to the state; refuses other keys than `KEY` with 401."""

    server_state: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self._body()
        state = self.server_state
        graphql = self.path.startswith("/graphql")
        if not graphql and "/file_stream" not in self.path:
            self._reply(200, {})  # the client's own telemetry
            return
        if self.headers.get("Authorization") != AUTHORIZATION:
            self._reply(401, {"errors": [{"message": "invalid API key"}]})
            return
        with state.arrived:
            if graphql:
                request = json.loads(body)
                name = request.get("operationName") or re.search(r"(?:query|mutation)\s+(\w+)", request["query"])[1]
                answer = {"data": state.answer(name, request.get("variables") or {}, request["query"])}
            else:
                answer = self._file_stream(json.loads(body))
            state.arrived.notify_all()
        self._reply(200, answer)

    def _file_stream(self, chunk: dict[str, Any]) -> dict[str, Any]:
        *_, run, _ = self.path.split("/")
        arrived = self.server_state.runs[run]
        for name, part in (chunk.get("files") or {}).items():
            for index, line in enumerate(part["content"]):
                arrived.lines[name][part["offset"] + index] = line
        if chunk.get("complete"):
            arrived.exit_codes.append(chunk["exitcode"])
        return {"exitcode": None, "limits": {}}

    def do_PUT(self) -> None:
        _, kind, owner, name = self.path.split("/", 3)
        state = self.server_state
        with state.arrived:
            files = state.artifacts[int(owner)]["files"] if kind == "artifact" else state.runs[owner].files
            files[name] = self._body()
        self._reply(200, {})

    def do_GET(self) -> None:
        self._reply(200, {})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Keep quiet."""


@contextmanager
def serving(port: int = 0) -> Iterator[WandbServer]:
    """A server for the length of a ``with`` block."""
    server = WandbServer(port)
    server.start()
    try:
        yield server
    finally:
        server.stop()
