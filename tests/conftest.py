"""What tests share: real photographs where they are at hand, a real S3 server, hypothesis' profiles, who gets which worker."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import register_profiles
from scheduling import FileScheduling

register_profiles()
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
# A worker for each core, and so one thread in each; where a test has more, those that spin while they wait would stop others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
REPOSITORY = Path(__file__).parents[1]
# Child processes of tests find the support modules as well.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(REPOSITORY / "tests" / "support"), os.environ.get("PYTHONPATH")))
)
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs the S3 server. tests/end_to_end comes first, because it takes longest."""
    items.sort(key=lambda item: item.path.parent.name != "end_to_end")
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if "s3_server" in getattr(item, "fixturenames", ()) or "s3" in parameters:
            item.add_marker(pytest.mark.s3)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FACECAPTION_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photographs."""
    folder = SHARED_DATA / "photos"
    if not folder.is_dir():
        pytest.skip("the shared photographs are not at hand")
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real S3 server on the loopback address; gives the environment that reaches its bucket ``data``."""
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if weed is None:
        pytest.skip("the SeaweedFS binary is not installed")
    ports = {name: free_port_below_grpc() for name in ("s3", "master", "filer", "volume")}
    secret = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": uuid.uuid4().hex, "AWS_REGION": "us-east-1"}
    command = [
        weed, "-logtostderr=true", "mini", f"-dir={tmp_path_factory.mktemp('weed')}", "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1", "-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0",
        "-s3.port.lance=0", f"-s3.port={ports['s3']}", f"-master.port={ports['master']}",
        f"-filer.port={ports['filer']}", f"-volume.port={ports['volume']}", "-bucket=data",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env={**os.environ, **secret}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    try:
        _wait_for_bucket(endpoint, secret)
        yield {**secret, "endpoint": endpoint}
    finally:
        process.kill()
        process.wait()


def free_port_below_grpc() -> int:
    """SeaweedFS opens port + 10000 as well."""
    while True:
        port = free_port()
        if port < 55_000:
            return port


def _wait_for_bucket(endpoint: str, secret: dict[str, str]) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=secret["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=secret["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    deadline = time.monotonic() + 30
    while True:
        try:
            client.put_object(Bucket="data", Key="ready", Body=b"")
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
