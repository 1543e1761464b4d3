"""Real servers for the tests of production: PostgreSQL, a web of pictures, and Dagster's own processes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml

from loopback import free_port, http_server

REPOSITORY = Path(__file__).parents[2]
SHARDS = 12
"""Of the deployment under test."""
_SHARED_MEMORY = "shared_memory_type=mmap"


def wait_until(what: str, found: Callable[[], Any], seconds: float, every: float = 0.5) -> Any:
    """What ``found`` gives once it is true. Fails after ``seconds``, with the last error that it raised."""
    deadline, error = time.monotonic() + seconds, "nothing yet"
    while time.monotonic() < deadline:
        try:
            value = found()
            if value:
                return value
            error = f"last answer: {value!r}"
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}"
        time.sleep(every)
    raise AssertionError(f"{what}: not within {seconds:.0f} s ({error})")


def s3_options(server: Mapping[str, str]) -> dict[str, str]:
    """Of a Store, from what the fixture ``s3_server`` gives."""
    return {
        "aws_endpoint_url": server["endpoint"],
        "aws_access_key_id": server["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": server["AWS_SECRET_ACCESS_KEY"],
        "aws_region": server["AWS_REGION"],
    }


# -- PostgreSQL ----------------------------------------------------------------------------------------------------------


def postgres_programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``: on the path, or where Debian keeps them."""
    on_path = shutil.which("pg_ctl")
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    candidates += [Path(on_path).parent] if on_path else []
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


class Postgres:
    """A cluster of its own on the loopback address, with one database and a password."""

    def __init__(self, programs: Path) -> None:
        self._programs, self.port = programs, free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="facecaption-postgres-"))
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._folder, self._user)
        self.password = secrets.token_hex(12)
        password_file = self._folder / "password"
        password_file.write_text(self.password, encoding="utf-8")
        password_file.chmod(0o644)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "dagster", "-A", "scram-sha-256", f"--pwfile={password_file}", "-N")
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(self.port),
            "DAGSTER_POSTGRES_USER": "dagster",
            "DAGSTER_POSTGRES_PASSWORD": self.password,
            "DAGSTER_POSTGRES_DB": "postgres",
        }

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder} -c fsync=off -c {_SHARED_MEMORY}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-o", options, "-l", log, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", mode, "-w", "stop")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, user=self._user, cwd=self._folder, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")


# -- a web of pictures ---------------------------------------------------------------------------------------------------


@dataclass
class PictureServer:
    """Serves one JPEG under every address. Those that contain a word of ``held`` wait until it is taken out."""

    port: int
    held: set[str] = field(default_factory=set)
    waiting: list[str] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}.jpg"


@contextmanager
def picture_server(picture: bytes) -> Iterator[PictureServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/robots.txt":
                self.send_error(404)
                return
            if any(word in self.path for word in state.held):
                state.waiting.append(self.path)
                while any(word in self.path for word in state.held):
                    time.sleep(0.1)
            body = picture + self.path.encode()  # behind the picture's end, so that no two files are equal
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with http_server(Handler) as port:
        state = PictureServer(port)
        yield state
        state.held.clear()


# -- Dagster -------------------------------------------------------------------------------------------------------------

_AS_DEPLOYED = {"DAGSTER_DISABLE_TELEMETRY": "1", "DAGSTER_EVENT_BATCH_SIZE": "1000"}
"""Of deploy/eks/settings.yaml."""
_DAEMON = """
import dagster._daemon.controller as controller
controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
from dagster._daemon.cli import main
main()
"""
"""The backfill daemon looks every 30 s, which no setting changes; tests have no time for that."""


class Deployment:
    """Code server, webserver and daemon as processes of their own, on ``deploy/dagster.yaml``."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.environment = {**os.environ, **environment, "DAGSTER_HOME": str(home), **_AS_DEPLOYED}
        self.code_port, self.web_port = free_port(), free_port()
        (home / "dagster.yaml").write_text(yaml.safe_dump(quick_instance()))
        location = {"host": "127.0.0.1", "port": self.code_port, "location_name": "facecaption"}
        (home / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": location}]}))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        where = ["-h", "127.0.0.1", "-p", str(self.code_port)]
        self._spawn("code", ["-m", "dagster", "api", "grpc", "-m", "facecaption_assets.definitions", *where])
        wait_until("the code server", lambda: _listens(self.code_port), 120)
        self._spawn("web", ["-m", "dagster_webserver", *self._workspace, "-h", "127.0.0.1", "-p", str(self.web_port)])
        self.start_daemon()
        wait_until("the webserver with its code location", self._loaded, 150)

    def limit(self, pool: str, slots: int) -> None:
        """Pools need a limit before runs meet them: two runs that meet one without both try to write it."""
        command = [sys.executable, "-m", "dagster", "instance", "concurrency", "set", pool, str(slots)]
        subprocess.run(command, env=self.environment, cwd=self.home, check=True, capture_output=True)

    @property
    def _workspace(self) -> list[str]:
        return ["-w", str(self.home / "workspace.yaml")]

    def start_daemon(self) -> None:
        self._spawn("daemon", ["-c", _DAEMON, "run", *self._workspace])

    def kill(self, name: str) -> None:
        """SIGKILL, as a machine that goes away."""
        self._processes[name].kill()
        self._processes[name].wait()

    def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.home.glob("*.log")))

    def processes_of(self, *words: str) -> list[int]:
        """The ids of this deployment's processes whose command line has all of ``words``; those of its runs too."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes()
            except OSError:  # it has ended, or belongs to somebody else
                continue
            if f"DAGSTER_HOME={self.home}\0".encode() in environment and all(word in command for word in words):
                found.append(int(entry.name))
        return found

    def run_workers(self) -> list[int]:
        """The processes of runs: the code server's own."""
        return [found for found in self.processes_of("spawn_main") if _parent(found) == self._processes["code"].pid]

    def steps(self) -> list[int]:
        """The processes of steps: those of the runs'."""
        workers = self.run_workers()
        return [found for found in self.processes_of("spawn_main") if _parent(found) in workers]

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        return graphql(self.web_port, query, **variables)

    def _loaded(self) -> bool:
        found = self.graphql("{workspaceOrError{... on Workspace{locationEntries{locationOrLoadError{__typename}}}}}")
        entries = found["workspaceOrError"]["locationEntries"]
        return [entry["locationOrLoadError"]["__typename"] for entry in entries] == ["RepositoryLocation"]

    def _spawn(self, name: str, arguments: Sequence[str]) -> None:
        log = (self.home / f"{name}.log").open("ab")
        self._processes[name] = subprocess.Popen(
            [sys.executable, *arguments], env=self.environment, stdout=log, stderr=log, cwd=self.home
        )


def graphql(port: int, query: str, **variables: Any) -> dict[str, Any]:
    """The data of the webserver's answer. Raises AssertionError with the server's message."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    address = f"http://127.0.0.1:{port}/graphql"
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    assert "errors" not in found, found["errors"]
    return dict(found["data"])


def _parent(process: int) -> int:
    """Of a process that is still there, else 0."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def interrupt(process: subprocess.Popen[bytes], seconds: float) -> None:
    """End a server as Ctrl-C does; kill it where it takes longer."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)


def quick_instance() -> dict[str, Any]:
    """deploy/dagster.yaml with its waits shortened; nothing else is changed."""
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy" / "dagster.yaml").read_text(encoding="utf-8"))
    found["run_coordinator"]["config"]["dequeue_interval_seconds"] = 1
    found["run_monitoring"] |= {"poll_interval_seconds": 2, "free_slots_after_run_end_seconds": 2}
    found["compute_logs"]["config"]["upload_interval"] = 5
    return found
