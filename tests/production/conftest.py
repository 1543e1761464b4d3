"""One deployment for all tests here: PostgreSQL, S3, code server, webserver and daemon, each a process of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from backfills import materialize, run_status
from facecaption_ml.storage.store import Store
from servers import (
    SHARDS,
    Deployment,
    PictureServer,
    Postgres,
    picture_server,
    postgres_programs,
    s3_options,
    wait_until,
)

ROWS = 2


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = postgres_programs()
    if programs is None:
        missing = "PostgreSQL's initdb and pg_ctl are not installed"
        # Where they are expected, a skipped test would look like a passed one.
        pytest.fail(missing) if os.environ.get("REQUIRE_POSTGRES") else pytest.skip(missing)
    server = Postgres(programs)
    yield server
    server.close()


@pytest.fixture(scope="session")
def pictures() -> Iterator[PictureServer]:
    from facecaption_ml.decoding import encode_jpeg
    from facecaption_ml.sample.scenes import draw_scene

    with picture_server(encode_jpeg(draw_scene(3).image)) as server:
        yield server


@pytest.fixture(scope="session")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, s3_server: dict[str, str], pictures: PictureServer
) -> Iterator[Deployment]:
    """Twelve shards of two pictures; steps run in processes beside the run's own."""
    home = tmp_path_factory.mktemp("production")
    source = home / "list.csv"
    rows = [f"{pictures.url(f'shard{n:02d}-{k}')},face {n} {k}" for n in range(SHARDS) for k in range(ROWS)]
    source.write_text("URL,TEXT\n" + "\n".join(rows) + "\n", encoding="utf-8")
    running = Deployment(home / "dagster", {**postgres.environment, **_settings(home, source, s3_server)})
    running.start()
    for pool in ("download", "a100"):
        running.limit(pool, 8)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def store(deployment: Deployment, s3_server: dict[str, str]) -> Store:
    """The deployment's own."""
    return Store(deployment.environment["FACECAPTION_STORE"], s3_options(s3_server))


@pytest.fixture(scope="session")
def registered(deployment: Deployment) -> Deployment:
    """With the shards of the source registered."""
    run = materialize(deployment, "source_manifest")
    ended = wait_until("the manifest", lambda: (s := run_status(deployment, run)) in ("SUCCESS", "FAILURE") and s, 120)
    assert ended == "SUCCESS"
    return deployment


def _settings(home: Path, source: Path, s3: dict[str, str]) -> dict[str, str]:
    return {
        "FACECAPTION_PROFILE": "photos",
        "FACECAPTION_HOME": str(home / "own"),
        "FACECAPTION_STORE": f"s3://data/{uuid.uuid4().hex}",
        "FACECAPTION_S3_ENDPOINT": s3["endpoint"],
        "FACECAPTION_S3_REGION": s3["AWS_REGION"],
        "FACECAPTION_S3_ACCESS_KEY_ID": s3["AWS_ACCESS_KEY_ID"],
        "FACECAPTION_S3_SECRET_ACCESS_KEY": s3["AWS_SECRET_ACCESS_KEY"],
        "FACECAPTION_SOURCE": str(source),
        "FACECAPTION_SHARD_SIZE": str(ROWS),
        "FACECAPTION_SHARDS_PER_RUN": "2",
        "FACECAPTION_EXECUTOR": "multiprocess",
        "FACECAPTION_ALLOW_PRIVATE_ADDRESSES": "true",
        "FACECAPTION_READ_TIMEOUT_S": "120",
        "FACECAPTION_TOTAL_TIMEOUT_S": "150",
        "FACECAPTION_THREADS": "1",
        "DAGSTER_LOGS_BUCKET": "data",
        "DAGSTER_LOGS_ENDPOINT_URL": s3["endpoint"],
        **{name: value for name, value in s3.items() if name.startswith("AWS_")},
        "OMP_NUM_THREADS": "1",
    }
