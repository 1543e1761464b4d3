"""The predictor that the pipeline uses: crops in, 40 calibrated probabilities out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from facecaption_ml.attributes.calibration import Calibration
from facecaption_ml.attributes.checkpoints import (
    CONFIG,
    THRESHOLDS,
    WEIGHTS,
    CheckpointError,
    checkpoint_folder,
    read_weights,
)
from facecaption_ml.attributes.data import fit
from facecaption_ml.attributes.labels import PAPER_RULE, PAPER_THRESHOLD, FaceOutcome, LabelRule, label_faces
from facecaption_ml.attributes.thresholds import PrecisionError, Thresholds, require_precision
from facecaption_ml.decoding import UndecodableImage, as_rgb
from facecaption_ml.pretrained import weights_version
from facecaption_ml.schemas import SCHEMAS, conform
from facecaption_ml.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from facecaption_ml.attributes.ensemble import Ensemble
    from facecaption_ml.attributes.network import AttributeNetwork, Preset


class AttributePredictor:
    """Calibrated probabilities of the 40 attributes. Made by :meth:`load`."""

    def __init__(
        self,
        network: AttributeNetwork | Ensemble,
        preset: Preset,
        calibration: Calibration,
        version: str,
        device: str,
        thresholds: Path | None = None,
    ) -> None:
        import torch

        from facecaption_ml.attributes.network import fold_norms

        fold_norms(network.eval())
        self._network = network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._size = preset.input
        self._calibration = calibration
        self._device = device
        self._thresholds = thresholds
        self.version = version

    @classmethod
    def load(cls, weights: str | Path = "bundled", device: str = "cpu") -> AttributePredictor:
        """From ``bundled``, a checkpoint folder or its ``.safetensors``. Raises CheckpointError naming what does not fit."""
        from safetensors import SafetensorError

        from facecaption_ml.attributes.ensemble import network_of
        from facecaption_ml.attributes.network import Preset

        folder = checkpoint_folder(weights)
        try:
            config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            preset = Preset.from_dict(config["preset"])
            offsets = config.get("offsets", {})  # checkpoints of version 0.1 have none
            calibration = Calibration(
                np.array([config["temperatures"][name] for name in ATTRIBUTES]),
                np.array([float(offsets.get(name, 0.0)) for name in ATTRIBUTES]),
            )
            network = network_of(config)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"attribute checkpoint {folder / CONFIG}: not a checkpoint's config: {error}"
            ) from error
        try:
            network.load_state_dict(read_weights(folder / WEIGHTS))
        except (SafetensorError, RuntimeError) as error:
            line = " ".join(str(error).split())[:160]
            raise CheckpointError(f"attribute checkpoint {folder / WEIGHTS}: does not fit: {line}") from error
        return cls(network, preset, calibration, weights_version(folder / WEIGHTS), device, folder / THRESHOLDS)

    @property
    def input(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        return self._size

    def rule(self, precision: float = 0.0, threshold: float = PAPER_THRESHOLD) -> LabelRule:
        """When an attribute is a label: for a ``precision`` of 0.5 to 0.99 the checkpoint's own thresholds, else ``threshold``.

        Raises PrecisionError for another precision, and where the checkpoint has no thresholds or those of other weights.
        """
        if not precision:
            return LabelRule.plain(threshold)
        require_precision(precision)
        path = self._thresholds
        if path is None or not path.is_file():
            where = f"attribute checkpoint {path.parent}" if path else "this attribute checkpoint"
            raise PrecisionError(
                f"{where} has no {THRESHOLDS}, so that no thresholds follow from a precision: ask for none "
                "(0), or measure it anew with python -m facecaption_ml.attributes.finishing"
            )
        table = Thresholds.read(path)
        if table.version != self.version:
            raise PrecisionError(f"{path}: of other weights ({table.version}) than the checkpoint's ({self.version})")
        return table.rule(precision)

    def labels(
        self, probabilities: np.ndarray | Sequence[Sequence[float]], precision: float | None = None
    ) -> list[list[str]]:
        """The attributes that hold of each face, contradictions settled, from ``probabilities`` [N, 40] of :meth:`predict`.

        With a ``precision`` those whose labels are right in at least that share of the cases; without, those with p > 0.85.
        Raises PrecisionError as :meth:`rule` does.
        """
        rule = self.rule(precision or 0.0)
        return [list(found.labels) for found in label_faces(probabilities, rule, min_labels=0)]

    def predict(self, images: Sequence[np.ndarray | bytes], batch_size: int = 64) -> np.ndarray:
        """float32 [N, 40] in 0–1, in the order of ``ATTRIBUTES``; ``images`` are face crops, RGB uint8 arrays or encoded.

        A crop's logits, with its mirror image's where the preset says so, are calibrated attribute by attribute. Raises
        UndecodableImage where bytes are no picture.
        """
        logits = [
            self.logits(np.stack([fit(as_rgb(image), self._size) for image in images[start : start + batch_size]]))
            for start in range(0, len(images), batch_size)
        ]
        if not logits:
            return np.zeros((0, len(ATTRIBUTES)), np.float32)
        return self._calibration.probabilities(np.concatenate(logits)).astype(np.float32)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Uncalibrated float64 [B, 40] of uint8 [B, H, W, 3] at the network's own size."""
        import torch

        with torch.inference_mode():
            found = self._network.views(torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2).float())
        return found.cpu().numpy()


def attribute_table(
    crops: pl.DataFrame,
    predictor: AttributePredictor,
    rule: LabelRule = PAPER_RULE,
    min_labels: int = 6,
    batch_size: int = 64,
) -> tuple[pl.DataFrame, Counter[str]]:
    """``face_attributes`` rows of ``crops`` (face_id, image) under ``rule``, and all of its rows by :class:`FaceOutcome`."""
    rows: list[dict[str, Any]] = []
    outcomes: Counter[str] = Counter()
    for start in range(0, len(crops), batch_size):
        batch = crops.slice(start, batch_size)
        ids, pictures = _decoded(batch, outcomes)
        probabilities = predictor.predict(pictures, batch_size)
        for face_id, p, found in zip(ids, probabilities, label_faces(probabilities, rule, min_labels), strict=True):
            outcomes[found.outcome] += 1
            if found.outcome is FaceOutcome.KEPT:
                rows.append(
                    {
                        "face_id": face_id,
                        **dict(zip(ATTRIBUTES, map(float, p), strict=True)),
                        "gender": found.gender,
                        "labels": list(found.labels),
                        "dropped_conflicts": list(found.dropped_conflicts),
                    }
                )
    return conform(pl.DataFrame(rows, schema=dict(SCHEMAS["face_attributes"])), "face_attributes"), outcomes


def _decoded(batch: pl.DataFrame, outcomes: Counter[str]) -> tuple[list[str], list[np.ndarray]]:
    ids, pictures = [], []
    for face_id, data in zip(batch["face_id"], batch["image"].struct.field("bytes"), strict=True):
        try:
            pictures.append(as_rgb(data or b""))
            ids.append(face_id)
        except UndecodableImage:
            outcomes[FaceOutcome.UNDECODABLE] += 1
    return ids, pictures
