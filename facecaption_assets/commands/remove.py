"""``facecaption remove``: a request to take something out, recorded, and what it touches and takes to carry out."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Sequence
from typing import Final

import click

from facecaption_assets.partitions import BENCHMARK_ASSETS, SHARD_ASSETS, STATISTICS_ASSETS
from facecaption_assets.settings import PREFIX, REMOVALS, Settings
from facecaption_ml.dataset.removal_requests import Holding, copies, holdings, parse_request, record_requests
from facecaption_ml.dataset.removals import RemovalList, RemovalListError
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.store import Store

_EXAMPLES: Final = 10


def remove(settings: Settings, lines: Sequence[str], reason: str, dry_run: bool) -> None:
    """Record the lines in the removal list and print what they touch.

    Raises ValueError where there is none, one is not understood, or no other machine would see the list, OSError where the list
    cannot be written, StoreError where the store cannot be read (the lines are recorded by then).
    """
    if not lines:
        raise FaceCaptionError("nothing to remove: give --url, --host, --face-id, --sample-id or --sha256")
    removed = RemovalList()
    for line in lines:
        removed |= parse_request(line)
    path = settings.removal_list or str(settings.home / REMOVALS)
    if dry_run:
        click.echo(f"dry run: nothing is recorded (the list is {path})")
    else:
        _refuse_a_list_of_this_machine(settings)
        today = datetime.datetime.now(datetime.UTC).date()
        written, known = record_requests(path, lines, reason, today, settings.storage_options)
        for line in written:
            click.echo(f"recorded in {path}: {line}")
        for line in known:
            click.echo(f"was in {path} already: {line}")
        if not settings.removal_list:
            click.echo(f"runs with this {PREFIX}HOME read it; elsewhere set {PREFIX}REMOVAL_LIST={path}")
    _show(settings, Store(settings.store_root, settings.storage_options), removed)


def _refuse_a_list_of_this_machine(settings: Settings) -> None:
    """With a store on S3, runs are elsewhere or will be: they would not see a list in this HOME, which a pod even loses."""
    chosen = settings.removal_list != str(settings.home / REMOVALS) or bool(os.environ.get(f"{PREFIX}REMOVAL_LIST"))
    if settings.store_root.startswith("s3://") and not (settings.removal_list and chosen):
        raise FaceCaptionError(
            f"{PREFIX}REMOVAL_LIST is not set and the store is {settings.store_root}: nothing is recorded, since "
            "other machines would not see it; set it to s3://BUCKET/KEY, or to a file that all of them see"
        )


def requested(
    urls: Sequence[str], hosts: Sequence[str], face_ids: Sequence[str], sample_ids: Sequence[str], hashes: Sequence[str]
) -> list[str]:
    """The options as lines of a list. Raises ValueError naming the option whose value is of another kind."""
    options = (
        ("--url", urls, "urls"),
        ("--host", [f"host:{host.removeprefix('host:')}" for host in hosts], "hosts"),
        ("--face-id", face_ids, "face_ids"),
        ("--sample-id", sample_ids, "sample_ids"),
        ("--sha256", hashes, "sha256"),
    )
    lines = []
    for option, values, kind in options:
        for value in map(str.strip, values):
            try:
                fits = bool(getattr(parse_request(value), kind))
            except RemovalListError:
                fits = False
            if not fits or (kind == "hosts" and "/" in value):
                raise FaceCaptionError(f"{option} {value.removeprefix('host:')[:80]!r}: that is {_KINDS[kind]}")
            lines.append(value)
    return lines


_KINDS: Final = {
    "urls": "no URL, such as https://example.org/1.jpg",
    "hosts": "no host name, such as example.org",
    "face_ids": "no face id: 16 hex digits, an underscore and a number",
    "sample_ids": "no sample id: 16 hex digits",
    "sha256": "no SHA-256: 64 hex digits",
}


def _show(settings: Settings, store: Store, removed: RemovalList) -> None:
    found = holdings(store, removed)
    click.echo()
    if not found:
        click.echo(f"no shard under {store.root} holds any of it; it will not be fetched or released from now on")
        return
    click.echo("What holds it:")
    for holding in found:
        click.echo(f"  {holding.shard}: " + ", ".join(f"{table} {rows}" for table, rows in holding.rows.items()))
    for url, sha256 in list(copies(store, removed, found).items())[:_EXAMPLES]:
        click.echo(f"  the same file lies at {url}, which is not removed: add --sha256 {sha256}")
    click.echo("\nPixels of it are still in:")
    for line in (*_objects(store, found), *_other_pictures(settings, store)):
        click.echo(f"  {line}")
    click.echo("\nTo carry it out, run:")
    for line in _commands(store, removed, found):
        click.echo(f"  {line}")
    click.echo("\nWhat honours the list, and what does not:")
    for line in _honoured(removed):
        click.echo(f"  {line}")


def _objects(store: Store, found: Sequence[Holding]) -> Iterator[str]:
    for holding in found:
        for table, count in holding.pictures.items():
            yield f"{store.uri(f'{table}/{holding.shard}.parquet')} ({count})"
    if any("facecaption_dataset" in holding.pictures for holding in found):
        yield f"{store.uri('release/data')} (packed with the crops)"


def _other_pictures(settings: Settings, store: Store) -> Iterator[str]:
    """Where pictures of some faces lie that nobody can look up by id."""
    for variant in _trained(store):
        if store.exists(f"flip_checkpoint/{variant}/retrievals.png"):
            yield f"perhaps {store.uri(f'flip_checkpoint/{variant}/retrievals.png')}"
    sheet = settings.home / "faces_and_captions.jpg"
    if sheet.exists():
        yield f"perhaps {sheet}"
    yield f"perhaps Dagster's event log ({settings.dagster_home}): face_crops and face_attributes show a few crops in it"


def _trained(store: Store) -> list[str]:
    keys = store.keys("flip_checkpoint/")
    return sorted({key.split("/")[1] for key in keys if key.endswith("/config.json")})


def _commands(store: Store, removed: RemovalList, found: Sequence[Holding]) -> Iterator[str]:
    """Those that take it out of every table, the release, and what was trained or measured on it."""
    shards = [holding.shard for holding in found]
    only_faces = len(removed) == len(removed.face_ids)
    if only_faces:
        for shard in shards:
            yield f"facecaption materialize facecaption_dataset {shard}"
        yield from (f"facecaption materialize {asset}" for asset in (*STATISTICS_ASSETS, "facecaption_release"))
    else:
        for first, last in _ranges(store.shards("source_manifest"), shards):
            yield f"facecaption run --skip-source --first {first} --last {last}"
    for variant in _trained(store):
        if _learned_from(store, variant, shards):
            yield f"facecaption materialize flip_checkpoint {variant}"
            for task, asset in BENCHMARK_ASSETS.items():
                for key in store.keys(f"benchmarks/{task}/"):
                    if key.endswith(f"/{variant}.json"):
                        yield f"facecaption materialize {asset} '{key.split('/')[2]}|{variant}'"
    if store.keys("face_features/"):
        yield "facecaption search 'anything'   # encodes the changed shards anew"


def _learned_from(store: Store, variant: str, shards: Sequence[str]) -> bool:
    """Whether a checkpoint read one of the shards; a checkpoint that does not say so is taken to have."""
    config = json.loads(store.read_bytes(f"flip_checkpoint/{variant}/config.json"))
    read = config.get("training", {}).get("shards")
    return read is None or bool(set(read) & set(shards))


def _ranges(known: Sequence[str], shards: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The shards as ranges of neighbours."""
    places = [known.index(shard) for shard in shards]
    start = 0
    for i, place in enumerate(places):
        if i + 1 == len(places) or places[i + 1] != place + 1:
            yield known[places[start]], known[place]
            start = i + 1


def _honoured(removed: RemovalList) -> Iterator[str]:
    if len(removed) > len(removed.face_ids):
        yield (
            "URLs, hosts, sample ids and hashes: raw_images drops the picture and never fetches it again; "
            f"{', '.join(SHARD_ASSETS[1:])} lose it when they are materialised after that"
        )
    if removed.face_ids:
        yield (
            "face ids: facecaption_dataset drops the row, so releases and trainings lose it; its crop stays in face_crops and "
            "its picture in raw_images, since other faces may be in it: --sample-id removes the whole picture"
        )
    yield "llm_answers keeps captions by a hash of the question, without ids, URLs or pixels"
    yield "not touched: files of trainings under HOME/training, copies elsewhere, old versions of objects in a bucket"
