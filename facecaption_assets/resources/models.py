"""The models that assets are given: detector, predictor, grammar, captioner, scorers, matcher."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from facecaption_assets.settings import PREFIX, Settings
from facecaption_ml.devices import resolve_device
from facecaption_ml.errors import FaceCaptionError, naming, naming_fields
from facecaption_ml.storage.store import Store, StoreError

if TYPE_CHECKING:
    from facecaption_ml.attributes import AttributePredictor, LabelRule
    from facecaption_ml.captions import CaptionGrammar
    from facecaption_ml.captions.rewrite.rewriting import Rewriter
    from facecaption_ml.faces import FaceDetector
    from facecaption_ml.flip import Flip
    from facecaption_ml.photos import PhotoCaptioner
    from facecaption_ml.statistics.matching import Matcher
    from facecaption_ml.statistics.quality import QualityScorer

_CLIP_SETTING = "FACECAPTION_CLIP"
_MATCHER_SETTING = "FACECAPTION_ITM_MODEL"
_FLIP_CHECKPOINTS = "flip_checkpoint/"  # in the store, a folder for each variant
_LLM: Final = f"{PREFIX}LLM_"


@dataclass(frozen=True)
class FromSettings:
    """A resource is opened as the settings say, where it is used."""

    settings: Settings

    @property
    def device(self) -> str:
        return resolve_device(self.settings.device, self.settings.threads)

    @property
    def cache(self) -> Path:
        """Where files of S3 are kept on this machine."""
        return self.settings.home / "cache"


class DetectorResource(FromSettings):
    """RetinaFace."""

    def load(self) -> FaceDetector:
        return load_detector(self.settings)


class PredictorResource(FromSettings):
    """The attribute predictor: the checkpoint that the ``attribute_model`` asset left in the store."""

    def load(self, store: Store) -> AttributePredictor:
        from facecaption_ml.attributes import AttributePredictor

        return AttributePredictor.load(store.local_folder("attribute_model", self.cache), device=self.device)


class GrammarResource(FromSettings):
    """The template captions' grammar."""

    def load(self) -> CaptionGrammar:
        from facecaption_ml.captions import CaptionGrammar

        with naming("FACECAPTION_GRAMMAR"):
            return CaptionGrammar.load(self.settings.captions.grammar)


@contextlib.contextmanager
def naming_llm() -> Iterator[None]:
    """Within the block, errors of the chat model name settings."""
    try:
        with naming_fields(_LLM):
            yield
    except FaceCaptionError as error:
        error.option = error.option and error.option.replace(f"{_LLM}VLLM_", f"{PREFIX}VLLM_")
        raise


class CaptionerResource(FromSettings):
    """The chat model that rewrites captions, and how it is asked."""

    def rewriter(self) -> Rewriter | None:
        """The rewriter; None where the backend is ``none``. Raises ChatModelError or PromptError naming the setting."""
        from facecaption_ml.captions.rewrite.rewriting import open_rewriter

        return self._opened(open_rewriter)

    def demonstrator(self) -> Rewriter | None:
        """The rewriter of a demonstration; None where none is wanted. Raises as ``rewriter``."""
        from facecaption_ml.captions.rewrite.rewriting import open_demonstrator

        return self._opened(open_demonstrator)

    def _opened(self, how: Callable[..., Rewriter | None]) -> Rewriter | None:
        settings = self.settings
        cache = self.cache / "chat_models"
        with naming_llm():
            return how(settings.llm, device=settings.device, threads=settings.threads, cache=cache, seed=settings.seed)


class QualityScorersResource(FromSettings):
    """BRISQUE, and CLIP-IQA where CLIP weights are available."""

    def load(self) -> tuple[list[QualityScorer], list[str]]:
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
        clip = self.settings.statistics.clip
        if not clip:
            notes.append(
                f"{_CLIP_SETTING} is not set, so there are no CLIP-IQA scores: name a folder of save_pretrained or a hub "
                f"name such as {clip_iqa.EXAMPLE}"
            )
            return scorers, notes
        try:
            with naming(_CLIP_SETTING):
                scorers.append(clip_iqa.ClipIqa.load(clip, device=self.device))
        except WeightsNotReachable as error:
            notes.append(str(error))
        return scorers, notes


class MatcherResource(FromSettings):
    """The model that tells whether a text matches a face: a BLIP, or a FLIP of this project."""

    def load(self, store: Store) -> tuple[Matcher | None, list[str]]:
        """The matcher; without one, None and the line that names what supplies it."""
        from facecaption_ml.statistics import blip

        if not self.settings.statistics.itm_model:
            return None, [
                f"{_MATCHER_SETTING} is not set, so nothing was matched: name a folder of save_pretrained, a hub name such as "
                f"{blip.EXAMPLE}, or {_FLIP_CHECKPOINTS}flip"
            ]
        from facecaption_ml.flip import FlipError
        from facecaption_ml.pretrained import WeightsNotReachable

        try:
            with naming(_MATCHER_SETTING):
                return self._load(store), []
        except (WeightsNotReachable, FlipError, StoreError) as error:
            return None, [str(error)]

    def _load(self, store: Store) -> Matcher:
        checkpoint = self.settings.statistics.itm_model
        named = checkpoint.startswith(_FLIP_CHECKPOINTS)
        folder = store.local_folder(checkpoint, self.cache) if named else Path(checkpoint).expanduser()
        if named or _is_flip(folder):
            from facecaption_ml.flip import Flip

            return Flip.load(folder, self.device)
        from facecaption_ml.statistics.blip import BlipMatcher

        return BlipMatcher.load(checkpoint, device=self.device)


def _is_flip(folder: Path) -> bool:
    """Whether the folder's configuration is that of a FLIP checkpoint, not of save_pretrained."""
    config = folder / "config.json"
    return config.is_file() and "preset" in json.loads(config.read_text(encoding="utf-8"))


def load_checkpoint(settings: Settings, store: Store, prefix: str) -> Flip:
    """The FLIP checkpoint under ``prefix`` as whoever uses it reads it: from the store. Raises StoreError or FlipError."""
    from facecaption_ml.flip import Flip

    device = resolve_device(settings.device, settings.threads)
    return Flip.load(store.local_folder(prefix, settings.home / "cache"), device)


def load_variant(settings: Settings, store: Store, variant: str) -> Flip:
    """The checkpoint that ``flip_checkpoint`` left of a variant. Raises StoreError where there is none, or FlipError."""
    try:
        return load_checkpoint(settings, store, _FLIP_CHECKPOINTS + variant)
    except StoreError as error:
        raise StoreError(f"no checkpoint of variant {variant!r}: {error}") from error


def load_flip(settings: Settings, store: Store, variant: str) -> tuple[Flip, str]:
    """The checkpoint of a variant, or ``bundled``, and its name; ``auto``: ``flip`` where the store has it, else ``bundled``.

    Raises as load_variant does.
    """
    from facecaption_ml.flip import Flip
    from facecaption_ml.flip.model.bundled_towers import BUNDLED
    from facecaption_ml.flip.model.files import CONFIG

    if variant == "auto":
        variant = "flip" if store.exists(f"{_FLIP_CHECKPOINTS}flip/{CONFIG}") else BUNDLED
    if variant == BUNDLED:
        return Flip.load(BUNDLED, resolve_device(settings.device, settings.threads)), BUNDLED
    return load_variant(settings, store, variant), variant


def load_detector(settings: Settings, weights: str = "") -> FaceDetector:
    """RetinaFace on the settings' device, for the smallest face that they keep. ``weights``: others than the settings'."""
    from facecaption_ml.faces import DetectionRules, FaceDetector

    device = resolve_device(settings.device, settings.threads)
    options = settings.detector.model_copy(update={"weights": weights} if weights else {})
    rules = DetectionRules(min_side=settings.crops.min_side)
    with naming("--weights" if weights else "FACECAPTION_DETECTOR_WEIGHTS"):
        return FaceDetector.from_options(options, device, str(settings.home / "weights"), rules)


def label_rule(settings: Settings, predictor: AttributePredictor) -> LabelRule:
    """When an attribute is a label, as the settings say. Raises PrecisionError naming the setting where it cannot be had."""
    with naming("FACECAPTION_LABEL_PRECISION"):
        return predictor.rule(settings.attributes.label_precision, settings.attributes.threshold)


def load_photo_captioner(
    settings: Settings,
    *,
    weights: str = "",
    attributes: str = "",
    grammar: str = "bundled",
    min_score: float = 0.9,
    seed: int = 0,
    excluded: Collection[str] = (),
) -> PhotoCaptioner:
    """Detector, attribute predictor and grammar for single photos, as the settings say. ``weights``: as of load_detector;
    ``attributes``: another predictor than the settings'; ``excluded``: attributes kept out of captions."""
    from facecaption_ml.attributes import AttributePredictor
    from facecaption_ml.captions import CaptionGrammar
    from facecaption_ml.photos import PhotoCaptioner

    device = resolve_device(settings.device, settings.threads)
    with naming("FACECAPTION_GRAMMAR"):
        loaded = CaptionGrammar.load(grammar)
    with naming("--attributes" if attributes else "FACECAPTION_ATTRIBUTE_WEIGHTS"):
        predictor = AttributePredictor.load(attributes or settings.attributes.weights or "bundled", device=device)
    rule = label_rule(settings, predictor)
    return PhotoCaptioner(
        load_detector(settings, weights),
        predictor,
        loaded,
        min_score=min_score,
        margin=settings.crops.margin,
        rule=rule,
        seed=seed,
        excluded=excluded,
    )
