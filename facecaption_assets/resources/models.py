"""The models that assets are given: detector, predictor, grammar, captioner, scorers, matcher."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from facecaption_ml.devices import resolve_device
from facecaption_ml.storage.store import Store, StoreError

if TYPE_CHECKING:
    from facecaption_assets.settings import Settings
    from facecaption_ml.attributes import AttributePredictor
    from facecaption_ml.captions import CaptionGrammar
    from facecaption_ml.captions.backends.chat import ChatModel
    from facecaption_ml.captions.rewrite.rewriting import Rewriter
    from facecaption_ml.faces import FaceDetector
    from facecaption_ml.photos import PhotoCaptioner
    from facecaption_ml.statistics.matching import Matcher
    from facecaption_ml.statistics.quality import QualityScorer

_FLIP_CHECKPOINTS = "flip_checkpoint/"  # in the store, a folder for each variant
_BATCHES_PER_CHUNK = 8  # of captions that the model is asked for at once


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
        from facecaption_ml.faces import DetectorOptions, FaceDetector

        options = DetectorOptions(
            weights=self.weights,
            network=self.network,  # type: ignore[arg-type]
            working_size=self.working_size,
            batch_size=self.batch_size,
        )
        return FaceDetector.from_options(options, resolve_device(self.device, self.threads), self.weights_folder)


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
        from facecaption_ml.captions.backends.chat import Sampling
        from facecaption_ml.captions.guided.prompt import RewritingPrompt
        from facecaption_ml.captions.rewrite.rewriting import Rewriter

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
            from facecaption_ml.captions.backends.endpoint import EndpointChatModel

            return EndpointChatModel(
                self.endpoint,
                self.model,
                os.environ.get("FACECAPTION_LLM_API_KEY"),
                concurrency=int(self.options["concurrency"]),
                timeout_s=self.options["timeout_s"],
            )
        if self.backend == "vllm":
            from facecaption_ml.captions.backends.vllm_offline import VllmChatModel

            return VllmChatModel(self.model)
        from facecaption_ml.captions.backends.local_chat import LocalChatModel

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


def load_photo_captioner(
    settings: "Settings",
    *,
    weights: str = "bundled",
    attributes: str = "bundled",
    grammar: str = "bundled",
    min_score: float = 0.9,
    seed: int = 0,
) -> "PhotoCaptioner":
    """Detector, attribute predictor and grammar for single photos, on the settings' device."""
    from facecaption_ml.attributes import AttributePredictor
    from facecaption_ml.captions import CaptionGrammar
    from facecaption_ml.faces import FaceDetector
    from facecaption_ml.photos import PhotoCaptioner

    device = resolve_device(settings.device, settings.threads)
    return PhotoCaptioner(
        FaceDetector.load(weights, device=device, weights_folder=str(settings.home / "weights")),
        AttributePredictor.load(attributes, device=device),
        CaptionGrammar.load(grammar),
        min_score=min_score,
        seed=seed,
    )
