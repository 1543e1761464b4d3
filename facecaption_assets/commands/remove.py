"""``facecaption remove``: a request to take something out, recorded, and what it touches and takes to carry out."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import click

from facecaption_assets.partitions import BENCHMARK_ASSETS, STATISTICS_ASSETS
from facecaption_assets.settings import PREFIX, REMOVALS, Settings
from facecaption_ml.dataset.removal_requests import Holding, copies, holdings, parse_request, record_requests
from facecaption_ml.dataset.removals import RemovalList, RemovalListError
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.schemas import DATASET
from facecaption_ml.storage.store import Store

_EXAMPLES: Final = 10


def remove(settings: Settings, lines: Sequence[str], reason: str, dry_run: bool) -> None:
    """Record the lines in the removal list and print what they touch.

    Raises FaceCaptionError where there is none, one is not understood, or no other machine would see the list, OSError where
    the list cannot be written, StoreError where the store cannot be read (the lines are recorded by then).
    """
    if not lines:
        raise FaceCaptionError("nothing to remove: give --url, --host, --face-id, --sample-id or --sha256")
    removed = RemovalList()
    for line in lines:
        removed |= parse_request(line)
    path = settings.release.removal_list or str(settings.home / REMOVALS)
    if dry_run:
        click.echo(f"dry run: nothing is recorded (the list is {path})")
    else:
        # With a store on S3, runs are elsewhere or will be: they would not see a list in this HOME, which a pod even loses.
        in_home = path == str(settings.home / REMOVALS) and not os.environ.get(f"{PREFIX}REMOVAL_LIST")
        if settings.store_root.startswith("s3://") and in_home:
            raise FaceCaptionError(
                f"{PREFIX}REMOVAL_LIST is not set and the store is {settings.store_root}: nothing is recorded, since "
                "other machines would not see it; set it to s3://BUCKET/KEY, or to a file that all of them see"
            )
        today = datetime.datetime.now(datetime.UTC).date()
        written, known = record_requests(path, lines, reason, today, settings.storage.options)
        for line in written:
            click.echo(f"recorded in {path}: {line}")
        for line in known:
            click.echo(f"was in {path} already: {line}")
        if not settings.release.removal_list:
            click.echo(f"runs with this {PREFIX}HOME read it; elsewhere set {PREFIX}REMOVAL_LIST={path}")
    _show(settings, settings.open_store(), removed)


def requested(
    urls: Sequence[str], hosts: Sequence[str], face_ids: Sequence[str], sample_ids: Sequence[str], hashes: Sequence[str]
) -> list[str]:
    """The options as lines of a list. Raises FaceCaptionError naming the option whose value is of another kind."""
    hosts = [f"host:{host.strip().removeprefix('host:')}" for host in hosts]
    values = (urls, hosts, face_ids, sample_ids, hashes)
    for (option, kind, words), lines in zip(_OPTIONS, values, strict=True):
        for line in map(str.strip, lines):
            try:
                fits = bool(getattr(parse_request(line), kind)) and not (kind == "hosts" and "/" in line)
            except RemovalListError:
                fits = False
            if not fits:
                raise FaceCaptionError(f"{option} {line.removeprefix('host:')[:80]!r}: that is no {words}")
    return [line.strip() for lines in values for line in lines]


_OPTIONS: Final = (
    ("--url", "urls", "URL, such as https://example.org/1.jpg"),
    ("--host", "hosts", "host name, such as example.org"),
    ("--face-id", "face_ids", "face id: 16 hex digits, an underscore and a number"),
    ("--sample-id", "sample_ids", "sample id: 16 hex digits"),
    ("--sha256", "sha256", "SHA-256: 64 hex digits"),
)


def _show(settings: Settings, store: Store, removed: RemovalList) -> None:
    held = holdings(store, removed)
    if not held:
        click.echo(f"\nno shard under {store.root} holds any of it; it will not be fetched or released from now on")
        return
    rows = [f"{one.shard}: " + ", ".join(f"{table} {count}" for table, count in one.rows.items()) for one in held]
    same = [
        f"the same file lies at {url}, which is not removed: add --sha256 {sha256}"
        for url, sha256 in list(copies(store, removed, held).items())[:_EXAMPLES]
    ]
    variants = sorted({key.split("/")[1] for key in store.keys("flip_checkpoint/") if key.endswith("/config.json")})
    for title, lines in (
        ("What holds it:", [*rows, *same]),
        ("Pixels of it are still in:", _pixels(settings, store, held, variants)),
        ("To carry it out, run:", _commands(store, removed, held, variants)),
        ("What honours the list, and what does not:", _honoured(removed)),
    ):
        click.echo("\n".join(["", title, *(f"  {line}" for line in lines)]))


def _pixels(settings: Settings, store: Store, held: Sequence[Holding], variants: Sequence[str]) -> Iterator[str]:
    for holding in held:
        for table, count in holding.pictures.items():
            yield f"{store.uri(f'{table}/{holding.shard}.parquet')} ({count})"
    if any(DATASET in holding.pictures for holding in held):
        yield f"{store.uri('release/data')} (packed with the crops)"
    # Pictures of some faces, which nobody can look up by id.
    sheets = [f"flip_checkpoint/{variant}/retrievals.png" for variant in variants]
    yield from (f"perhaps {store.uri(sheet)}" for sheet in sheets if store.exists(sheet))
    sheet = settings.home / "faces_and_captions.jpg"
    if sheet.exists():
        yield f"perhaps {sheet}"
    yield f"perhaps Dagster's event log ({settings.dagster_home}): face_crops and face_attributes show a few crops in it"


def _commands(store: Store, removed: RemovalList, held: Sequence[Holding], variants: Sequence[str]) -> Iterator[str]:
    """Those that take it out of every table, the release, and what was trained or measured on it."""
    shards = [holding.shard for holding in held]
    if len(removed) == len(removed.face_ids):
        yield from (f"facecaption materialize facecaption_dataset {shard}" for shard in shards)
        yield from (f"facecaption materialize {asset}" for asset in (*STATISTICS_ASSETS, "facecaption_release"))
    else:
        place = {shard: number for number, shard in enumerate(store.shards("source_manifest"))}
        for _, run in groupby(enumerate(shards), lambda item: place[item[1]] - item[0]):
            neighbours = [shard for _, shard in run]
            yield f"facecaption run --skip-source --first {neighbours[0]} --last {neighbours[-1]}"
    for variant in variants:
        config = json.loads(store.read_bytes(f"flip_checkpoint/{variant}/config.json"))
        read = config.get("training", {}).get("shards", shards)  # a checkpoint that does not say may have read any
        if set(read) & set(shards):
            yield f"facecaption materialize flip_checkpoint {variant}"
            for task, asset in BENCHMARK_ASSETS.items():
                for key in store.keys(f"benchmarks/{task}/"):
                    if key.endswith(f"/{variant}.json"):
                        yield f"facecaption materialize {asset} '{key.split('/')[2]}|{variant}'"
    if store.keys("face_features/"):
        yield "facecaption search 'anything'   # encodes the changed shards anew"


def _honoured(removed: RemovalList) -> Iterator[str]:
    if len(removed) > len(removed.face_ids):
        yield "raw_images drops the picture and never fetches it again; every later table loses it when it is next materialized"
    if removed.face_ids:
        yield (
            "facecaption_dataset drops the row of a face id, so releases and trainings lose it; its crop stays in face_crops "
            "and its picture in raw_images: --sample-id removes the whole picture"
        )
    yield "llm_answers keeps captions by a hash of the question, without ids, URLs or pixels"
    yield "not touched: files of trainings under HOME/training, copies elsewhere, old versions of objects in a bucket"
