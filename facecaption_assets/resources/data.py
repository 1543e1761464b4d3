"""What assets are given: the store, the source, the downloader, and the models (models.py)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from facecaption_assets.resources.models import (
    CaptionerResource,
    DetectorResource,
    FromSettings,
    GrammarResource,
    MatcherResource,
    PredictorResource,
    QualityScorersResource,
)
from facecaption_assets.settings import PREFIX, Settings
from facecaption_assets.training.launch import STOP_SECONDS
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.dataset.sources import (
    ManifestCounts,
    SourceColumnError,
    SourceError,
    SourceKindError,
    is_picture,
    names_pictures,
    normalise,
    read_source,
)
from facecaption_ml.storage.base import S3
from facecaption_ml.storage.objects import object_version, read_object
from facecaption_ml.storage.store import Store

if TYPE_CHECKING:
    from facecaption_ml.images import DownloadContext, DownloadPolicy, FetchStatus
    from facecaption_ml.sample.world import SampleWorld

SAMPLE = "sample"
"""The source that stands for the sample world."""


def removals(settings: Settings) -> RemovalList:
    """What the removal list names. Raises RemovalListError."""
    return RemovalList.read(settings.removals_address, settings.storage.options)


@dataclass(frozen=True)
class StoreResource:
    """Where tables and checkpoints live."""

    root: str
    options: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> Store:
        return Store(self.root, self.options)


class SourceResource(FromSettings):
    """The list of images: a table, a folder, or the sample world."""

    def batches(self, counts: ManifestCounts) -> Iterator[pl.DataFrame]:
        """Batches of ``url, alt_text, width, height, nsfw``, with what ``counts`` gathers.

        Raises SourceError naming what is wrong with the source.
        """
        location = self.settings.source.location
        if not location:
            raise SourceError("it is not set: a table of URLs, a folder of pictures, or 'sample'")
        if location == SAMPLE:
            frame = normalise(self.sample_world().manifest())
            counts.add_records(len(frame))
            yield frame
        else:
            yield from self.read(location, counts)

    def read(self, location: str, counts: ManifestCounts, *, pictures: bool = True) -> Iterator[pl.DataFrame]:
        """Batches of another list with the same columns; without ``pictures`` it names no files. Raises SourceError."""
        source = self.settings.source
        try:
            yield from read_source(
                location,
                source.columns,
                self.settings.storage.options,
                rules=source.rules,
                counts=counts,
                pictures=pictures,
            )
        except SourceColumnError as error:
            error.option = error.option or f"{PREFIX}URL_COLUMN"
            raise
        except SourceKindError as error:
            error.option = error.option or f"{PREFIX}SOURCE_KIND"
            raise

    def sample_world(self) -> SampleWorld:
        from facecaption_ml.sample.world import SampleWorld

        return SampleWorld(seed=self.settings.seed, scenes=self.settings.sample.scenes)


class DownloaderResource(FromSettings):
    """How images are fetched; for the sample world, also the server that they are fetched from."""

    def denied(self) -> RemovalList:
        """What is never fetched: the deny list and the removal list together."""
        deny = RemovalList.read(self.settings.source.deny_list, self.settings.storage.options)
        return deny | removals(self.settings)

    @contextlib.contextmanager
    def session(
        self, refetch: frozenset[FetchStatus] = frozenset()
    ) -> Iterator[tuple[DownloadPolicy, DownloadContext]]:
        """The policy and the context of a run. The sample world's server lives as long as the block.

        ``refetch``: rows that ended so are fetched again.
        """
        from facecaption_ml.images import DownloadContext

        settings, denied = self.settings, self.denied()
        if settings.source.location != SAMPLE:
            own = self._own_pictures()
            yield settings.download, DownloadContext(denied, refetch=refetch, scratch=self.cache / "bodies", **own)
            return
        from facecaption_ml.sample.server import serve_in_subprocess

        cache = self.cache / "sample_world"
        with serve_in_subprocess(settings.seed, settings.sample.scenes, cache_dir=cache) as server:
            context = DownloadContext(denied, server.connect_to, refetch=refetch, scratch=self.cache / "bodies")
            yield settings.download, context

    def _own_pictures(self) -> dict[str, Any]:
        """How rows are read that are no web addresses; only where the source itself is a folder or a prefix of pictures, or a
        table that names them.

        A list of URLs from elsewhere never gets to read this machine's files.
        """
        source = self.settings.source
        location = source.location
        if location.startswith(S3):
            storage = self.settings.storage.options
            return {
                "open_object": lambda url: read_object(url, storage),
                "object_version": lambda url: object_version(url, storage),
            }
        path = Path(location).expanduser()
        if path.is_file():
            own = is_picture(path.name) or names_pictures(location, source.columns, source.rules)
            return {"allow_files_under": path.parent.resolve()} if own else {}
        return {"allow_files_under": path.resolve()} if path.is_dir() else {}


def build_resources(settings: Settings) -> dict[str, Any]:
    """Every resource from the settings."""
    return {
        "store": StoreResource(settings.store_root, settings.storage.options),
        "source": SourceResource(settings),
        "downloader": DownloaderResource(settings),
        "detector": DetectorResource(settings),
        "predictor": PredictorResource(settings),
        "grammar": GrammarResource(settings),
        "captioner": CaptionerResource(settings),
        "quality_scorers": QualityScorersResource(settings),
        "matcher": MatcherResource(settings),
        "training_processes": dg.PipesSubprocessClient(termination_timeout_seconds=STOP_SECONDS),
    }
