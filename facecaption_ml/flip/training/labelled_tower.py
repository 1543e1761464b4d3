"""An image tower that has learned labels, for a FLIP of few pairs to start from.

A few hundred captions teach a ViT of random weights little; the same captions are enough for one that knows what hair and
glasses look like. The paper's towers start from ImageNet's labels for the same reason. A tower is left as a folder of
``save_pretrained`` in half precision, which ``image_init`` takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facecaption_ml.flip.errors import TrainingError
from facecaption_ml.flip.model.files import CARD
from facecaption_ml.flip.model.model import image_tower, normalised
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.pairs.augmentation import plain_view, training_view
from facecaption_ml.flip.training.optimisation import learning_rate, parameter_groups, warm_up_within
from facecaption_ml.pretrained import weights_version

EVALUATION: Final = "evaluation.json"
_WEIGHTS: Final = "model.safetensors"
_WEIGHT_DECAY: Final = 0.05
_ENCODED_AT_ONCE: Final = 256
_VIEW_STREAM: Final = 0x7014
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelledFaces:
    """Faces uint8 [N, H, W, 3] with labels bool [N, K], and their rows by split: train, validation, test."""

    pixels: Pixels
    labels: Labels
    rows: Mapping[str, npt.NDArray[np.int64]]
    name: str


@dataclass(frozen=True)
class TowerResult:
    """Shares of 1 over all labels: right by the tower, and by each label's more frequent value in the training split."""

    best_epoch: int
    accuracy: float
    majority: float
    faces: int


def train_labelled_tower(
    faces: LabelledFaces,
    preset: Preset,
    out: Path,
    *,
    epochs: int = 12,
    batch_size: int = 64,
    peak_learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[int, float], None] | None = None,
) -> TowerResult:
    """Train the image tower of ``preset`` on the labels and write it to ``out``; equal arguments give equal weights.

    The epoch is the one with the best mean accuracy on the validation split; the test split is looked at once.
    ``on_epoch`` gets each epoch and its accuracy. Raises TrainingError where a split is empty.
    """
    for split in ("train", "validation", "test"):
        if not len(faces.rows.get(split, ())):
            raise TrainingError(f"{faces.name} has no faces in its {split} split")
    torch.manual_seed(seed)
    network = _Network(preset, faces.labels.shape[1]).to(device)
    best, best_epoch = -1.0, 0
    kept: dict[str, Tensor] = {}
    for epoch in _epochs(network, faces, preset, epochs, batch_size, peak_learning_rate, seed):
        accuracy = _accuracy(network, faces, "validation", preset.image.size)
        if on_epoch:
            on_epoch(epoch, accuracy)
        if accuracy > best:
            best, best_epoch = accuracy, epoch
            kept = {name: value.detach().clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    result = TowerResult(
        best_epoch, _accuracy(network, faces, "test", preset.image.size), _majority(faces), len(faces.rows["train"])
    )
    _write(network, preset, faces, result, out, epochs=epochs, seed=seed)
    return result


class _Network(nn.Module):
    """The tower with one linear layer on its [CLS] token."""

    def __init__(self, preset: Preset, outputs: int) -> None:
        super().__init__()
        self.tower = image_tower(preset)
        self.head = nn.Linear(preset.image.width, outputs)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [B, K] of uint8 [B, 3, S, S]."""
        return self.head(self.tower(normalised(pixels)).last_hidden_state[:, 0])


def _epochs(
    network: _Network, faces: LabelledFaces, preset: Preset, epochs: int, batch: int, peak: float, seed: int
) -> Any:
    """Trains one epoch after another and gives its number."""
    train = faces.rows["train"]
    steps_each = math.ceil(len(train) / batch)
    steps = epochs * steps_each
    warm_up = warm_up_within(steps_each, steps)
    optimiser = torch.optim.AdamW(parameter_groups(network, _WEIGHT_DECAY), lr=peak, fused=True)
    device, step = next(network.parameters()).device, 0
    for epoch in range(1, epochs + 1):
        network.train()
        order = np.random.default_rng((seed, epoch)).permutation(train)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            views = np.stack([_view(faces, row, preset.image.size, seed, epoch) for row in rows.tolist()])
            logits = network(_batch(views).to(device))
            loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(faces.labels[rows]).float().to(device))
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, steps, peak / 100, peak, peak / 100, warm_up)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            step += 1
        yield epoch


def _view(faces: LabelledFaces, row: int, side: int, seed: int, epoch: int) -> Pixels:
    rng = np.random.default_rng((_VIEW_STREAM, seed, epoch, row))
    return training_view(faces.pixels[row], side, rng, randaugment=0.0)


def _batch(views: Pixels) -> Tensor:
    return torch.from_numpy(views).permute(0, 3, 1, 2)


@torch.inference_mode()
def _accuracy(network: _Network, faces: LabelledFaces, split: str, side: int) -> float:
    network.eval()
    device, rows, right = next(network.parameters()).device, faces.rows[split], 0
    for start in range(0, len(rows), _ENCODED_AT_ONCE):
        part = rows[start : start + _ENCODED_AT_ONCE]
        views = np.stack([plain_view(faces.pixels[row], side) for row in part.tolist()])
        found = (network(_batch(views).to(device)) > 0).cpu().numpy()
        right += int((found == faces.labels[part]).sum())
    return right / (len(rows) * faces.labels.shape[1])


def _majority(faces: LabelledFaces) -> float:
    often = faces.labels[faces.rows["train"]].mean(0) >= 0.5
    return float((faces.labels[faces.rows["test"]] == often).mean())


def _write(
    network: _Network, preset: Preset, faces: LabelledFaces, result: TowerResult, out: Path, *, epochs: int, seed: int
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    network.tower.cpu().half().save_pretrained(out)
    (out / EVALUATION).write_text(json.dumps({"preset": preset.name, "data": faces.name, **asdict(result)}, indent=1))
    template = Template(files("facecaption_ml.flip.training").joinpath("tower_card.md").read_text("utf-8"))
    shape = preset.image
    card = template.substitute(
        preset=preset.name, version=weights_version(out / _WEIGHTS), data=faces.name, faces=f"{result.faces:,}",
        labels=faces.labels.shape[1], size=shape.size, patch=shape.patch, layers=shape.layers, width=shape.width,
        parameters=f"{sum(p.numel() for p in network.tower.parameters()) / 1e6:.2f}M", epochs=epochs,
        epoch=result.best_epoch, seed=seed, accuracy=f"{100 * result.accuracy:.1f}",
        majority=f"{100 * result.majority:.1f}", tests=f"{len(faces.rows['test']):,}",
    )  # fmt: skip
    (out / CARD).write_text(card, encoding="utf-8")
