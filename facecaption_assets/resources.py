"""What assets are given: the store, the source, the downloader, the detector, the predictor and the grammar."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from facecaption_assets.flip_training import STOP_SECONDS
from facecaption_assets.settings import Settings
from facecaption_ml.object_storage import read_object
from facecaption_ml.removals import RemovalList
from facecaption_ml.sources import SourceColumns, SourceError, normalise, read_source
from facecaption_ml.store import Store, StoreError

if TYPE_CHECKING:
    from facecaption_ml.attributes import AttributePredictor
    from facecaption_ml.captions import CaptionGrammar
    from facecaption_ml.captions.chat import ChatModel
    from facecaption_ml.captions.rewriting import Rewriter
    from facecaption_ml.faces import FaceDetector
    from facecaption_ml.images import DownloadPolicy
    from facecaption_ml.sample.world import SampleWorld
    from facecaption_ml.statistics.matching import Matcher
    from facecaption_ml.statistics.quality import QualityScorer

SAMPLE = "sample"
_FLIP_CHECKPOINTS = "flip_checkpoint/"  # in the store, a folder for each variant
_BATCHES_PER_CHUNK = 8  # of captions that the model is asked for at once


class StoreResource(dg.ConfigurableResource):
    """Where tables and checkpoints live."""

    root: str
    endpoint: str = ""
    region: str = ""

    def open(self) -> Store:
        options = {"aws_endpoint_url": self.endpoint, "aws_region": self.region}
        return Store(self.root, {key: value for key, value in options.items() if value})


class SourceResource(dg.ConfigurableResource):
    """The list of images: a table, a folder, or the sample world."""

    location: str
    columns: dict[str, str]
    sample_seed: int
    sample_scenes: int
    endpoint: str = ""

    def batches(self) -> Iterator[pl.DataFrame]:
        """Batches of ``url, alt_text, width, height, nsfw``. Raises SourceError naming what is wrong with the source."""
        if not self.location:
            raise SourceError("FACECAPTION_SOURCE is not set: a table of URLs, a folder of pictures, or 'sample'")
        if self.location == SAMPLE:
            yield normalise(self.sample_world().manifest())
        else:
            options = {"aws_endpoint_url": self.endpoint} if self.endpoint else {}
            yield from read_source(self.location, SourceColumns(**self.columns), options)

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
    endpoint: str = ""

    def denied(self) -> RemovalList:
        """What is never fetched: the deny list and the removal list together."""
        return RemovalList.read(self.deny_list) | RemovalList.read(self.removal_list)

    @contextlib.contextmanager
    def session(self) -> Iterator["DownloadPolicy"]:
        """The policy of a run. The sample world's server lives as long as the block."""
        from facecaption_ml.images import DownloadPolicy

        denied = self.denied()
        options: dict[str, Any] = {
            **self.options,
            "contact": self.contact or None,
            "denied_urls": denied.urls,
            "denied_hosts": denied.hosts,
            "denied_sha256": denied.sha256,
            "denied_sample_ids": denied.sample_ids,
        }
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
        if self.source.startswith("s3://"):
            storage = {"aws_endpoint_url": self.endpoint} if self.endpoint else {}
            return {"open_object": lambda url: read_object(url, storage)}
        folder = Path(self.source).expanduser()
        return {"allow_files_under": folder.resolve()} if folder.is_dir() else {}


class DetectorResource(dg.ConfigurableResource):
    """RetinaFace."""

    weights: str
    network: str
    device: str
    working_size: int
    batch_size: int
    threads: int
    weights_folder: str

    def load(self) -> "FaceDetector":
        from facecaption_ml.faces import FaceDetector

        device = resolve_device(self.device, self.threads)
        return FaceDetector.load(
            self.weights,
            device=device,
            network=self.network,
            working_size=self.working_size,
            batch_size=self.batch_size or None,
            weights_folder=self.weights_folder,
        )


class PredictorResource(dg.ConfigurableResource):
    """The attribute predictor: the checkpoint that the ``attribute_model`` asset left in the store."""

    device: str
    threads: int
    cache: str

    def load(self, store: Store) -> "AttributePredictor":
        from facecaption_ml.attributes import AttributePredictor

        folder = store.local_folder("attribute_model", Path(self.cache))
        return AttributePredictor.load(folder, device=resolve_device(self.device, self.threads))


class GrammarResource(dg.ConfigurableResource):
    """The template captions' grammar."""

    path: str

    def load(self) -> "CaptionGrammar":
        from facecaption_ml.captions import CaptionGrammar

        return CaptionGrammar.load(self.path)


class CaptionerResource(dg.ConfigurableResource):
    """The chat model that rewrites captions, and how it is asked. The endpoint's key is read where it is used."""

    backend: str
    model: str
    endpoint: str
    prompt: str
    options: dict[str, float]
    guided: bool
    device: str
    threads: int
    cache: str
    seed: int

    def rewriter(self) -> "Rewriter | None":
        """The rewriter; None where the backend is ``none``. Raises ChatModelError or PromptError naming the setting."""
        if self.backend == "none":
            return None
        from facecaption_ml.captions.chat import Sampling
        from facecaption_ml.captions.prompt import RewritingPrompt
        from facecaption_ml.captions.rewriting import Rewriter

        guided = self.guided and self.backend == "local"
        options = self.options
        return Rewriter(
            self._model(),
            RewritingPrompt.load(self.prompt),
            Sampling(options["temperature"], options["top_p"], int(options["max_new_tokens"])),
            attempts=int(options["attempts"]),
            seed=self.seed,
            guided=guided,
            least_fluency=options["least_fluency"] if guided else None,
            chunk=int(options["batch_size"]) * _BATCHES_PER_CHUNK,
        )

    def _model(self) -> "ChatModel":
        batch_size = int(self.options["batch_size"])
        if self.backend == "endpoint":
            from facecaption_ml.captions.endpoint import EndpointChatModel

            return EndpointChatModel(
                self.endpoint,
                self.model,
                os.environ.get("FACECAPTION_LLM_API_KEY"),
                concurrency=int(self.options["concurrency"]),
                timeout_s=self.options["timeout_s"],
            )
        if self.backend == "vllm":
            from facecaption_ml.captions.vllm_offline import VllmChatModel

            return VllmChatModel(self.model)
        from facecaption_ml.captions.local_chat import LocalChatModel

        device = resolve_device(self.device, self.threads)
        threads = self.threads or os.cpu_count() or 1
        return LocalChatModel(self.model, Path(self.cache), device, batch_size, threads)


class QualityScorersResource(dg.ConfigurableResource):
    """BRISQUE, and CLIP-IQA where CLIP weights are at hand."""

    clip: str
    device: str
    threads: int

    def load(self) -> "tuple[list[QualityScorer], list[str]]":
        """The scorers there are, and a line for each that is missing, naming what supplies it."""
        from facecaption_ml.pretrained import WeightsNotReachable
        from facecaption_ml.statistics import clip_iqa
        from facecaption_ml.statistics.brisque import Brisque, BrisqueModelError

        scorers: list[QualityScorer] = []
        notes: list[str] = []
        try:
            scorers.append(Brisque.load())
        except BrisqueModelError as error:
            notes.append(str(error))
        if not self.clip:
            notes.append(
                f"{clip_iqa.SETTING} is not set, so there are no CLIP-IQA scores: name a folder of save_pretrained or a hub "
                f"name such as {clip_iqa.EXAMPLE}"
            )
            return scorers, notes
        try:
            scorers.append(clip_iqa.ClipIqa.load(self.clip, device=resolve_device(self.device, self.threads)))
        except WeightsNotReachable as error:
            notes.append(str(error))
        return scorers, notes


class MatcherResource(dg.ConfigurableResource):
    """The model that tells whether a text matches a face: a BLIP, or a FLIP of this project."""

    checkpoint: str
    device: str
    threads: int
    cache: str

    def load(self, store: Store) -> "tuple[Matcher | None, list[str]]":
        """The matcher; without one, None and the line that names what supplies it."""
        from facecaption_ml.statistics import blip

        if not self.checkpoint:
            return None, [
                f"{blip.SETTING} is not set, so nothing was matched: name a folder of save_pretrained, a hub name such as "
                f"{blip.EXAMPLE}, or {_FLIP_CHECKPOINTS}flip"
            ]
        from facecaption_ml.flip import FlipError
        from facecaption_ml.pretrained import WeightsNotReachable

        try:
            return self._load(store), []
        except (WeightsNotReachable, FlipError, StoreError) as error:
            return None, [str(error) if blip.SETTING in str(error) else f"{blip.SETTING}: {error}"]

    def _load(self, store: Store) -> "Matcher":
        device = resolve_device(self.device, self.threads)
        named = self.checkpoint.startswith(_FLIP_CHECKPOINTS)
        folder = store.local_folder(self.checkpoint, Path(self.cache)) if named else Path(self.checkpoint).expanduser()
        if named or _is_flip(folder):
            from facecaption_ml.flip import Flip

            return Flip.load(folder, device)
        from facecaption_ml.statistics.blip import BlipMatcher

        return BlipMatcher.load(self.checkpoint, device=device)


def _is_flip(folder: Path) -> bool:
    """Whether the folder's configuration is that of a FLIP checkpoint, not of save_pretrained."""
    config = folder / "config.json"
    return config.is_file() and "preset" in json.loads(config.read_text(encoding="utf-8"))


def resolve_device(device: str, threads: int) -> str:
    """``auto`` becomes cuda where there is one. On the CPU the number of torch threads is set on purpose."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(threads or os.cpu_count() or 1)
    return device


def build_resources(settings: Settings) -> dict[str, Any]:
    """Every resource from the settings."""
    return {
        "store": StoreResource(root=settings.store_root, endpoint=settings.s3_endpoint, region=settings.s3_region),
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
            endpoint=settings.s3_endpoint,
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
            endpoint=settings.s3_endpoint,
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
