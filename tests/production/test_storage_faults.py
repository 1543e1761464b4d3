"""Stores that fail while something is written or read: nothing half-written is ever seen, nothing finished is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import polars as pl
import pytest

from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store, StoreError
from faulty_proxy import FaultyProxy, faulty_proxy
from servers import s3_options

SHARD = "shard-00000"


def crops(rows: int, size: int = 100_000) -> pl.DataFrame:
    """Rows with pictures of noise, which nothing compresses."""
    noise = np.random.default_rng(rows)
    found = [{"face_id": f"{i:016x}_0", "image": {"bytes": noise.bytes(size), "path": None}} for i in range(rows)]
    return pl.DataFrame(found, dict(SCHEMAS["face_crops"]))


def store_at(endpoint: str, server: dict[str, str], prefix: str) -> Store:
    return Store(f"s3://data/{prefix}", s3_options({**server, "endpoint": endpoint}))


@pytest.fixture
def proxy(s3_server: dict[str, str]) -> Iterator[FaultyProxy]:
    port = urlsplit(s3_server["endpoint"]).port
    assert port
    with faulty_proxy(port) as found:
        yield found


def test_an_upload_in_parts_survives_busy_answers_and_cut_connections(
    s3_server: dict[str, str], proxy: FaultyProxy
) -> None:
    prefix, table = uuid.uuid4().hex, crops(450)
    proxy.faults.extend(["busy", "cut", "cut", "busy"])
    store_at(proxy.endpoint, s3_server, prefix).write_table("face_crops", table, SHARD)
    assert {"busy", "cut"} <= set(proxy.served)
    assert store_at(s3_server["endpoint"], s3_server, prefix).read_table("face_crops", SHARD).equals(table)


def test_a_server_that_stays_busy_leaves_the_last_whole_object(
    s3_server: dict[str, str], proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    prefix, table = uuid.uuid4().hex, crops(3)
    direct = store_at(s3_server["endpoint"], s3_server, prefix)
    direct.write_table("face_crops", table, SHARD)
    for fault in ("busy", "cut"):
        proxy.always = fault
        with pytest.raises(StoreError, match=rf"cannot write s3://data/{prefix}/face_crops") as caught:
            store_at(proxy.endpoint, s3_server, prefix).write_table("face_crops", crops(200), SHARD)
        assert s3_server["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
    assert direct.read_table("face_crops", SHARD).equals(table)
    assert direct.keys() == [f"face_crops/{SHARD}.parquet"]


def test_reading_survives_busy_answers(s3_server: dict[str, str], proxy: FaultyProxy) -> None:
    prefix, table = uuid.uuid4().hex, crops(20)
    store_at(s3_server["endpoint"], s3_server, prefix).write_table("face_crops", table, SHARD)
    through = store_at(proxy.endpoint, s3_server, prefix)
    proxy.faults.extend(["busy", "busy"])
    assert through.read_table("face_crops", SHARD).equals(table)
    proxy.faults.extend(["busy"])
    assert pl.concat(through.iter_table("face_crops", SHARD)).equals(table)
    assert proxy.served.count("busy") >= 2


@pytest.mark.parametrize("way", ["table", "file", "bytes"])
def test_reading_survives_answers_that_are_cut_off(way: str, s3_server: dict[str, str], proxy: FaultyProxy) -> None:
    prefix, table = uuid.uuid4().hex, crops(40)
    store_at(s3_server["endpoint"], s3_server, prefix).write_table("face_crops", table, SHARD)
    proxy.faults.extend(["cut answer", "cut answer"])
    through, key = store_at(proxy.endpoint, s3_server, prefix), f"face_crops/{SHARD}.parquet"
    if way == "table":
        assert through.read_table("face_crops", SHARD).equals(table)
    elif way == "file":
        with through.reading_file(key) as path:
            assert pl.read_parquet(path).equals(table)
    else:
        assert pl.read_parquet(through.read_bytes(key)).equals(table)
    assert proxy.served[:3] == ["cut answer", "cut answer", "passed on"]


_WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_storage_faults import crops, store_at, SHARD
from facecaption_ml.storage.store import Store
store = {store}
for _ in range(5):
    store.write_table("face_crops", crops({rows}), SHARD)
"""


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_two_writers_of_one_shard_leave_one_whole_table(place: str, tmp_path: Path, s3_server: dict[str, str]) -> None:
    prefix = uuid.uuid4().hex
    if place == "s3":
        code = f"store_at({s3_server['endpoint']!r}, {s3_server!r}, {prefix!r})"
        store = store_at(s3_server["endpoint"], s3_server, prefix)
    else:
        code, store = f"Store({str(tmp_path / 'store')!r})", Store(str(tmp_path / "store"))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER.format(tests=str(Path(__file__).parent), store=code, rows=rows)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rows in (40, 60)
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if store.has_table("face_crops", SHARD):
            seen.add(len(store.read_table("face_crops", SHARD)))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen <= {40, 60}
    last = store.read_table("face_crops", SHARD)
    assert last.equals(crops(len(last)))
    assert store.shards("face_crops") == [SHARD]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a file system can be mounted by root only: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_loses_nothing(small_disk: Path) -> None:
    store, table = Store(str(small_disk / "store")), crops(10)
    store.write_table("face_crops", table, SHARD)
    for _ in range(2):  # what a failed attempt wrote must not be in the way of the next
        with pytest.raises(StoreError, match=r"cannot write .*shard-00001.*[Nn]o space left"):
            store.write_table("face_crops", crops(40), "shard-00001")
    assert store.shards("face_crops") == [SHARD]
    assert store.read_table("face_crops", SHARD).equals(table)
    store.write_table("face_crops", crops(12), "shard-00001")
    assert store.shards("face_crops") == [SHARD, "shard-00001"]
