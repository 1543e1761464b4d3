from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import polars as pl
import pytest

from facecaption_ml.schemas import SCHEMAS, SchemaError
from facecaption_ml.storage.store import Store, StoreError


def captions(rows: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "face_id": [f"{i:016x}_0" for i in range(rows)],
            "template_caption": ["A man."] * rows,
            "labels": [["Male"]] * rows,
            "gender": ["male"] * rows,
        },
        schema=dict(SCHEMAS["template_captions"]),
    )


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "store"))
    server: dict[str, str] = request.getfixturevalue("s3_server")
    return Store(
        f"s3://data/{tmp_path.name}",
        {
            "aws_endpoint_url": server["endpoint"],
            "aws_access_key_id": server["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": server["AWS_SECRET_ACCESS_KEY"],
            "aws_region": server["AWS_REGION"],
        },
    )


def test_a_table_comes_back_as_it_was(store: Store) -> None:
    frame = captions(1000)
    store.write_table("template_captions", frame, "shard-00000")
    assert store.read_table("template_captions", "shard-00000").equals(frame)
    assert store.row_count("template_captions", "shard-00000") == 1000
    assert pl.concat(store.iter_table("template_captions", "shard-00000", batch_rows=300)).equals(frame)
    columns = ["gender", "face_id"]
    assert store.read_table("template_captions", "shard-00000", columns=columns).columns == columns


def test_incomplete_rows_are_kept_apart_until_the_shard_is_done(store: Store) -> None:
    store.write_table("template_captions", captions(3), "shard-00000", incomplete=True)
    assert not store.has_table("template_captions", "shard-00000")
    assert store.shards("template_captions") == []
    assert len(store.read_table("template_captions", "shard-00000", incomplete=True)) == 3
    store.write_table("template_captions", captions(4), "shard-00000")
    assert store.shards("template_captions") == ["shard-00000"]
    assert not store.has_table("template_captions", "shard-00000", incomplete=True)


def test_a_missing_shard_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match=r"template_captions.*shard-00007.*materialise"):
        store.read_table("template_captions", "shard-00007")


def test_a_folder_goes_there_and_back(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "deep" / "weights").write_bytes(b"\x00\x01")
    store.upload_folder(tmp_path / "model", "attribute_model")
    folder = store.local_folder("attribute_model", tmp_path / "cache")
    assert (folder / "deep" / "weights").read_bytes() == b"\x00\x01"
    store.delete("attribute_model/deep/weights")
    with pytest.raises(StoreError, match="attribute_model"):
        store.local_folder("attribute_model", tmp_path / "cache")


def test_a_table_with_a_wrong_column_is_refused(store: Store) -> None:
    with pytest.raises(SchemaError, match="gender"):
        store.write_table("template_captions", captions(1).drop("gender"), "shard-00000")
    with pytest.raises(SchemaError, match="labels"):
        store.write_table("template_captions", captions(1).with_columns(labels=pl.lit("x")), "shard-00000")
    assert not store.has_table("template_captions", "shard-00000")


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*file.*FACECAPTION_STORE"):
        Store(str(tmp_path / "file" / "store")).check_writable()


def test_an_s3_store_out_of_reach_is_named_without_its_secret() -> None:
    options = {
        "aws_endpoint_url": "http://127.0.0.1:9",
        "aws_access_key_id": "id",
        "aws_secret_access_key": "very-secret",
        "aws_region": "us-east-1",
    }
    store = Store("s3://data/x", options)
    with pytest.raises(StoreError, match=r"s3://data/x.*FACECAPTION_S3_ENDPOINT") as caught:
        store.exists("a")
    assert "very-secret" not in str(caught.value) + repr(store)


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    path = Path(store.write_table("template_captions", captions(10), "shard-00000"))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StoreError, match=r"cannot read .*shard-00000"):
        store.read_table("template_captions", "shard-00000")


_WRITER = """
import sys, polars as pl
sys.path.insert(0, {tests!r})
from test_store import captions
from facecaption_ml.storage.store import Store
store = Store({root!r})
print("ready", flush=True)
while True:
    store.write_table("template_captions", captions(200_000), "shard-00000")
"""


@pytest.mark.processes
def test_a_killed_writer_leaves_the_last_whole_table(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    store.write_table("template_captions", captions(5), "shard-00000")
    code = _WRITER.format(tests=str(Path(__file__).parent), root=store.root)
    for delay in (0.05, 0.12, 0.2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len(store.read_table("template_captions", "shard-00000")) in (5, 200_000)
        assert store.shards("template_captions") == ["shard-00000"]


def test_objects_are_encrypted_at_rest_where_that_is_set(s3_server: dict[str, str], tmp_path: Path) -> None:
    options = {
        "aws_endpoint_url": s3_server["endpoint"],
        "aws_access_key_id": s3_server["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": s3_server["AWS_SECRET_ACCESS_KEY"],
        "aws_region": s3_server["AWS_REGION"],
    }
    client = boto3.client(
        "s3",
        endpoint_url=s3_server["endpoint"],
        aws_access_key_id=s3_server["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3_server["AWS_SECRET_ACCESS_KEY"],
        region_name=s3_server["AWS_REGION"],
    )
    for encryption in ({}, {"aws_server_side_encryption": "AES256"}):
        store = Store(f"s3://data/{tmp_path.name}-{len(encryption)}", options | encryption)
        store.write_table("template_captions", captions(3), "shard-00000")
        key = store.uri("template_captions/shard-00000.parquet").removeprefix("s3://data/")
        found = client.head_object(Bucket="data", Key=key).get("ServerSideEncryption")
        assert found == encryption.get("aws_server_side_encryption")
        assert store.read_table("template_captions", "shard-00000").equals(captions(3))
        assert store.row_count("template_captions", "shard-00000") == 3
