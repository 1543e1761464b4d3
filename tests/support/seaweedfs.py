"""A real S3 server for tests: SeaweedFS on the loopback address."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from loopback import free_port

_GRPC_OFFSET = 10_000
_PORTS = range(12_000, 22_000)
_TRIES = 3
_SECONDS_TO_START = 60


def seaweedfs_program() -> str | None:
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@contextlib.contextmanager
def seaweedfs(program: str, folder: Path) -> Iterator[dict[str, str]]:
    """Runs a server that keeps its data under ``folder``; gives the environment that reaches its bucket ``data``.

    One that does not come up is ended and another tried on other ports. Raises RuntimeError with the last lines of its log
    where none came up.
    """
    for number in range(_TRIES):
        data = folder / str(number)
        data.mkdir(parents=True)
        log = folder / f"{number}.log"
        secret = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": uuid.uuid4().hex, "AWS_REGION": "us-east-1"}
        s3, master, filer, volume, admin = _ports()
        command = [
            program, "-logtostderr=true", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.port={s3}", f"-master.port={master}", f"-filer.port={filer}", f"-volume.port={volume}",
            f"-admin.port={admin}", "-bucket=data",
        ]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(command, env={**os.environ, **secret}, stdout=output, stderr=output)
        try:
            if _bucket_answers(f"http://127.0.0.1:{s3}", secret, process):
                yield {**secret, "endpoint": f"http://127.0.0.1:{s3}"}
                return
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"SeaweedFS did not start in {_TRIES} tries:\n{log.read_text(errors='replace')[-3000:]}")


def _ports() -> set[int]:
    """Five, free with those that SeaweedFS opens for gRPC."""
    ports = set[int]()
    while len(ports) < 5:
        ports.add(free_port((0, _GRPC_OFFSET), _PORTS))
    return ports


def _bucket_answers(endpoint: str, secret: dict[str, str], process: subprocess.Popen[bytes]) -> bool:
    """Whether an object could be put before the process ended or the time ran out."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=secret["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=secret["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 1}),
    )
    deadline = time.monotonic() + _SECONDS_TO_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.put_object(Bucket="data", Key="ready", Body=b"")
        except Exception:  # not there yet, or there and not ready yet
            time.sleep(0.2)
        else:
            return True
    return False
