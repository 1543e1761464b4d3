"""What assets are given: the store, the source, the downloader, and the models (model_resources.py)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from facecaption_assets.resources.models import (
    CaptionerResource,
    DetectorResource,
    GrammarResource,
    MatcherResource,
    PredictorResource,
    QualityScorersResource,
)
from facecaption_assets.settings import PREFIX, Settings
from facecaption_assets.training.launch import STOP_SECONDS
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.dataset.sources import SourceColumnError, SourceColumns, SourceError, normalise, read_source
from facecaption_ml.storage.objects import S3, read_object
from facecaption_ml.storage.store import Store

if TYPE_CHECKING:
    from facecaption_ml.images import DownloadPolicy
    from facecaption_ml.sample.world import SampleWorld

SAMPLE = "sample"


class StoreResource(dg.ConfigurableResource):
    """Where tables and checkpoints live."""

    root: str
    options: dict[str, str] = {}  # noqa: RUF012

    def open(self) -> Store:
        return Store(self.root, self.options)


class SourceResource(dg.ConfigurableResource):
    """The list of images: a table, a folder, or the sample world."""

    location: str
    columns: dict[str, str]
    sample_seed: int
    sample_scenes: int
    storage: dict[str, str] = {}  # noqa: RUF012

    def batches(self) -> Iterator[pl.DataFrame]:
        """Batches of ``url, alt_text, width, height, nsfw``. Raises SourceError naming what is wrong with the source."""
        if not self.location:
            raise SourceError("it is not set: a table of URLs, a folder of pictures, or 'sample'")
        if self.location == SAMPLE:
            yield normalise(self.sample_world().manifest())
        else:
            yield from self.read(self.location)

    def read(self, location: str) -> Iterator[pl.DataFrame]:
        """Batches of another list with the same columns. Raises SourceError."""
        try:
            yield from read_source(location, SourceColumns(**self.columns), self.storage)
        except SourceColumnError as error:
            error.option = error.option or f"{PREFIX}URL_COLUMN"
            raise

    def sample_world(self) -> "SampleWorld":
        from facecaption_ml.sample.world import SampleWorld

        return SampleWorld(seed=self.sample_seed, scenes=self.sample_scenes)


class DownloaderResource(dg.ConfigurableResource):
    """How images are fetched; for the sample world, also the server that they are fetched from."""

    options: dict[str, Any]
    source: str
    sample_seed: int
    sample_scenes: int
    cache: str
    contact: str = ""
    deny_list: str = ""
    removal_list: str = ""
    storage: dict[str, str] = {}  # noqa: RUF012

    def denied(self) -> RemovalList:
        """What is never fetched: the deny list and the removal list together."""
        return RemovalList.read(self.deny_list, self.storage) | RemovalList.read(self.removal_list, self.storage)

    @contextlib.contextmanager
    def session(self) -> Iterator["DownloadPolicy"]:
        """The policy of a run. The sample world's server lives as long as the block."""
        from facecaption_ml.images import DownloadPolicy

        options: dict[str, Any] = {**self.options, "contact": self.contact or None, "denied": self.denied()}
        if self.source != SAMPLE:
            yield DownloadPolicy(**options, **self._own_pictures())
            return
        from facecaption_ml.sample.server import serve_in_subprocess

        with serve_in_subprocess(self.sample_seed, self.sample_scenes, cache_dir=Path(self.cache)) as server:
            yield DownloadPolicy(**options, connect_to=server.connect_to)

    def _own_pictures(self) -> dict[str, Any]:
        """How rows are read that are no web addresses; only where the source itself is a folder or a prefix of pictures.

        A list of URLs from elsewhere never gets to read this machine's files.
        """
        if self.source.startswith(S3):
            storage = dict(self.storage)
            return {"open_object": lambda url: read_object(url, storage)}
        folder = Path(self.source).expanduser()
        return {"allow_files_under": folder.resolve()} if folder.is_dir() else {}


def build_resources(settings: Settings) -> dict[str, Any]:
    """Every resource from the settings."""
    return {
        "store": StoreResource(root=settings.store_root, options=settings.storage_options),
        "source": SourceResource(
            location=settings.source,
            columns={
                "url": settings.url_column,
                "text": settings.text_column,
                "width": settings.width_column,
                "height": settings.height_column,
                "nsfw": settings.nsfw_column,
            },
            sample_seed=settings.seed,
            sample_scenes=settings.sample_scenes,
            storage=settings.storage_options,
        ),
        "downloader": DownloaderResource(
            options={
                "connections": settings.connections,
                "connections_per_host": settings.connections_per_host,
                "connect_timeout_s": settings.connect_timeout_s,
                "read_timeout_s": settings.read_timeout_s,
                "total_timeout_s": settings.total_timeout_s,
                "max_bytes": settings.max_image_bytes,
                "max_pixels": settings.max_image_pixels,
                "max_redirects": settings.max_redirects,
                "retries": settings.retries,
                "backoff_s": settings.backoff_s,
                "respect_opt_out": settings.respect_opt_out,
                "allow_private_addresses": settings.allow_private_addresses,
            },
            source=settings.source,
            sample_seed=settings.seed,
            sample_scenes=settings.sample_scenes,
            cache=str(settings.home / "cache" / "sample_world"),
            contact=settings.user_agent_contact,
            deny_list=settings.deny_list,
            removal_list=settings.removal_list,
            storage=settings.storage_options,
        ),
        "detector": DetectorResource(
            weights=settings.detector_weights,
            network=settings.detector_network,
            device=settings.device,
            working_size=settings.detector_working_size,
            batch_size=settings.detector_batch_size,
            threads=settings.threads,
            weights_folder=str(settings.home / "weights"),
        ),
        "predictor": PredictorResource(
            device=settings.device, threads=settings.threads, cache=str(settings.home / "cache")
        ),
        "grammar": GrammarResource(path=settings.grammar),
        "captioner": CaptionerResource(
            backend=settings.llm_backend,
            model=settings.llm_model,
            endpoint=settings.llm_endpoint,
            prompt=settings.llm_prompt,
            options={
                "temperature": settings.llm_temperature,
                "top_p": settings.llm_top_p,
                "max_new_tokens": settings.llm_max_new_tokens,
                "attempts": settings.llm_attempts,
                "least_fluency": settings.llm_least_fluency,
                "batch_size": settings.llm_batch_size,
                "concurrency": settings.llm_concurrency,
                "timeout_s": settings.llm_timeout_s,
            },
            guided=settings.llm_guided,
            device=settings.device,
            threads=settings.threads,
            cache=str(settings.home / "cache" / "chat_models"),
            seed=settings.seed,
        ),
        "quality_scorers": QualityScorersResource(clip=settings.clip, device=settings.device, threads=settings.threads),
        "matcher": MatcherResource(
            checkpoint=settings.itm_model,
            device=settings.device,
            threads=settings.threads,
            cache=str(settings.home / "cache"),
        ),
        "training_processes": dg.PipesSubprocessClient(termination_timeout_seconds=STOP_SECONDS),
    }
