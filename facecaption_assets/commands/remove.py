"""``facecaption remove``: a request to take something out, recorded and carried out as far as that needs no rebuild.

It prints where the rest is, the commands that rebuild it, and what is out of its reach.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import click
import dagster as dg

from facecaption_assets.commands.clean import runs_in_progress
from facecaption_assets.commands.dagster_home import has_instance
from facecaption_assets.commands.event_log import Redactions, Words, redact_events, redact_file
from facecaption_assets.commands.instance import prepare_home
from facecaption_assets.factories.records import note_source_rows, source_rows
from facecaption_assets.partitions import BENCHMARK_ASSETS, STATISTICS_ASSETS
from facecaption_assets.resources.data import SAMPLE
from facecaption_assets.settings import PREFIX, REMOVALS, Settings
from facecaption_ml.dataset.ingest import reading_lists
from facecaption_ml.dataset.removal_requests import (
    Holding,
    Survey,
    copies,
    parse_request,
    record_requests,
    remove_addresses,
    survey,
    words_of,
)
from facecaption_ml.dataset.removals import RemovalList, RemovalListError
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.flip.use.face_features import FOLDER as FEATURES
from facecaption_ml.schemas import DATASET, SCHEMAS, SOURCE
from facecaption_ml.storage.content import table_version
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
    store = settings.open_store()
    if dry_run:
        _carry_out(settings, store, removed, dry_run=True)
        return
    # A reading of the source that began before the request would write the rows anew that are emptied here.
    with reading_lists(store, on_wait=click.echo):
        _carry_out(settings, store, removed, dry_run=False)


def requested(
    urls: Sequence[str], hosts: Sequence[str], face_ids: Sequence[str], sample_ids: Sequence[str], hashes: Sequence[str]
) -> list[str]:
    """The options as lines of a list. Raises FaceCaptionError naming the option whose value is of another kind."""
    hosts = [f"host:{host.strip().removeprefix('host:')}" for host in hosts]
    values = (urls, hosts, face_ids, sample_ids, hashes)
    for (option, kind, words), lines in zip(_OPTIONS, values, strict=True):
        for line in map(str.strip, lines):
            why = ""
            try:
                fits = bool(getattr(parse_request(line), kind))
            except RemovalListError as error:
                fits, why = False, f" ({str(error).removeprefix('the request, line 1: ')})"
            if not fits:
                raise FaceCaptionError(f"{option} {line.removeprefix('host:')[:80]!r}: that is no {words}{why}")
    return [line.strip() for lines in values for line in lines]


_OPTIONS: Final = (
    ("--url", "urls", "URL, such as https://example.org/1.jpg"),
    ("--host", "hosts", "host name, such as example.org"),
    ("--face-id", "face_ids", "face id: 16 hex digits, an underscore and a number"),
    ("--sample-id", "sample_ids", "sample id: 16 hex digits"),
    ("--sha256", "sha256", "SHA-256: 64 hex digits"),
)


def _carry_out(settings: Settings, store: Store, removed: RemovalList, *, dry_run: bool) -> None:
    """Take out at once what needs no rebuild, and print where the rest is and which commands take it out.

    The addresses go from the manifest last: they tell what to look for, so that a removal that was interrupted finds the rest
    when it is run again.
    """
    found = survey(store, removed)
    same = copies(store, removed, found.held)
    variants = sorted({key.split("/")[1] for key in store.keys("flip_checkpoint/") if key.endswith("/config.json")})
    pixels = list(_pixels(store, found, variants))
    redactions = redact_log(settings, store, removed, found, dry_run=dry_run)
    done = list(_done_at_once(settings, store, found.held, redactions, dry_run=dry_run))
    if not (found.held or found.released):
        what = "has any of its faces" if found.pictured else "holds any of it"
        click.echo(f"\nno shard under {store.root} {what}; it will not be fetched or released from now on")
    rows = [f"{one.shard}: " + ", ".join(f"{table} {count}" for table, count in one.rows.items()) for one in found.held]
    if found.released:
        rows.append(f"release: {found.released}")
    also = [
        f"the same file lies at {url}, which is not removed: add --sha256 {sha256}"
        for url, sha256 in list(same.items())[:_EXAMPLES]
    ]
    if len(same) > _EXAMPLES:
        also.append(f"… and {len(same) - _EXAMPLES} more")
    for title, lines in (
        ("What holds it:", [*rows, *also]),
        ("Pixels of it are still in:", pixels),
        ("What this command takes out:" if dry_run else "Taken out by this command:", done),
        ("To carry it out, run:", _commands(store, found, variants)),
        ("What honours the list, and what does not:", _honoured(settings, store, removed, redactions, variants)),
    ):
        if shown := list(lines):
            click.echo("\n".join(["", title, *(f"  {line}" for line in shown)]))


def redact_log(settings: Settings, store: Store, removed: RemovalList, found: Survey, *, dry_run: bool) -> Redactions:
    """Take it out of Dagster's event log and log files and of HOME's errors.log; nothing where there is no instance yet.

    Where a list that was written by hand has emptied the tables before, nothing tells which words to look for: then what
    events of these shards show goes as a whole.
    """
    urls, texts = set[str](), set[str]()
    for kind, values in words_of(store, found.held, removed):
        (urls if kind == "url" else texts).update(values)
    words = Words(removed, urls, texts)
    errors = settings.home / "errors.log"
    in_errors = errors.is_file() and redact_file(errors, words, dry_run)
    if not has_instance(settings):
        return Redactions(files=int(in_errors))
    prepare_home(settings)
    with dg.DagsterInstance.get() as instance:
        shown = [*(holding.shard for holding in found.held), *found.emptied]
        redactions = redact_events(instance, shown, words, dry_run=dry_run)
        redactions.files += in_errors
    running = runs_in_progress(settings)
    if running:
        redactions.problems.append(
            f"{len(running)} run(s) in progress ({running[0][:8]} …), which may write it anew: run this again when they end"
        )
    return redactions


def _done_at_once(
    settings: Settings, store: Store, held: Sequence[Holding], redactions: Redactions, *, dry_run: bool
) -> Iterator[str]:
    """What needs no rebuild: said, and done unless it is a dry run."""
    if redactions.events or redactions.files:
        where = os.environ.get("DAGSTER_HOME", str(settings.dagster_home))
        yield f"pictures, tables, URLs and texts in {redactions.events} event(s) and {redactions.files} log file(s) of {where}"
    sheet = settings.home / "faces_and_captions.jpg"
    if held and sheet.exists():
        yield f"{sheet} (`facecaption run` makes it anew)"
        if not dry_run:
            sheet.unlink(missing_ok=True)
    shards = {holding.shard for holding in held}
    features = [key for key in store.keys(f"{FEATURES}/") if key.rpartition("/")[2].rpartition(".")[0] in shards]
    if features:
        yield f"{len(features)} file(s) of {store.uri(FEATURES)} (the next search encodes these shards anew)"
        for key in () if dry_run else features:
            store.delete(key)
    addresses = sum(holding.rows.get(SOURCE, 0) for holding in held if holding.registered)
    if addresses:
        yield f"URL and alt text of {addresses} row(s) of {store.uri(SOURCE)}, which keep their place and sample id"
        if not dry_run:
            remove_addresses(store, held)
    if not dry_run:
        # Of shards too whose rows an earlier try has emptied, which may have ended before this.
        _note_source_rows(settings, store, [holding.shard for holding in held if holding.registered])


def _note_source_rows(settings: Settings, store: Store, shards: Sequence[str]) -> None:
    """Shards whose rows were emptied want making again, as `facecaption status` and the nightly backfill then say."""
    if not has_instance(settings):
        return
    with dg.DagsterInstance.get() as instance:
        noted = source_rows(instance, shards)
        note_source_rows(
            instance, {shard: table_version(store, SOURCE, shard, columns=SCHEMAS[SOURCE]) for shard in noted}
        )


def _pixels(store: Store, found: Survey, variants: Sequence[str]) -> Iterator[str]:
    for holding in (*found.held, *found.pictured):
        for table, count in holding.pictures.items():
            yield f"{store.uri(f'{table}/{holding.shard}.parquet')} ({count})"
    if found.released and any(DATASET in holding.pictures for holding in found.held):
        yield f"{store.uri('release/data')} (packed with the crops)"
    # Pictures of some faces, which nobody can look up by id.
    sheets = [f"flip_checkpoint/{variant}/retrievals.png" for variant in variants]
    if found.held:
        yield from (f"perhaps {store.uri(sheet)}" for sheet in sheets if store.exists(sheet))


def _commands(store: Store, found: Survey, variants: Sequence[str]) -> Iterator[str]:
    """Those that take it out of every table, the release, and what was trained or measured on it."""
    rebuilt = [one.shard for one in found.held if one.registered and set(one.rows) - {SOURCE}]
    place = {shard: number for number, shard in enumerate(store.shards(SOURCE))}
    for _, run in groupby(enumerate(rebuilt), lambda item: place[item[1]] - item[0]):
        neighbours = [shard for _, shard in run]
        yield f"facecaption run --skip-source --first {neighbours[0]} --last {neighbours[-1]}"
    if not rebuilt and found.released:
        yield from (f"facecaption materialize {asset}" for asset in (*STATISTICS_ASSETS, "facecaption_release"))
    if not all(holding.registered for holding in found.held):
        yield "facecaption clean   # deletes the tables of shards that left the source"
    shards = {holding.shard for holding in found.held}
    for variant in variants:
        config = json.loads(store.read_bytes(f"flip_checkpoint/{variant}/config.json"))
        read = config.get("training", {}).get("shards", shards)  # a checkpoint that does not say may have read any
        if set(read) & shards:
            yield f"facecaption materialize flip_checkpoint {variant}"
            for task, asset in BENCHMARK_ASSETS.items():
                for key in store.keys(f"benchmarks/{task}/"):
                    if key.endswith(f"/{variant}.json"):
                        yield f"facecaption materialize {asset} '{key.split('/')[2]}|{variant}'"


def _honoured(
    settings: Settings, store: Store, removed: RemovalList, redactions: Redactions, variants: Sequence[str]
) -> Iterator[str]:
    by_address = bool(removed.urls or removed.hosts or removed.sample_ids)
    if by_address or removed.sha256:
        again = "never fetches it again" if by_address else "keeps it no more, whatever its address"
        yield f"raw_images drops the picture and {again}; every later table loses it when it is next materialized"
    if removed.face_ids:
        yield (
            "face_crops and every later table lose a face that is on the list; its picture stays in raw_images, as others may "
            "be in it: --sample-id removes the whole picture"
        )
    if removed.sha256:
        yield (
            "a list that is read again brings back the addresses of a removed hash, though never its pixels: give --url or "
            "--sample-id as well to keep them out"
        )
    yield "llm_captions forgets the answers for it, and other models' answers of these shards, when it is next materialized"
    out_of_reach = [*redactions.problems, "copies and releases that were published or downloaded", "backups"]
    if settings.source.location and settings.source.location != SAMPLE:
        out_of_reach.append(
            f"the list itself ({settings.source.location})"
            + (": its rows are emptied whenever it is read" if by_address else "")
        )
    if (settings.home / "training").exists():
        out_of_reach.append(f"files of trainings under {settings.home / 'training'}: delete them")
    if variants:
        out_of_reach.append("what checkpoints have learned from it, until they are trained again")
    if store.root.startswith("s3://"):
        out_of_reach.append(f"old versions of objects, where the bucket of {store.root} keeps them")
    yield from (f"not reached: {where}" for where in out_of_reach)
