"""The training: FLIP's task (paper §5.1) on kept maps, with several captions for each face."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from facecaption_ml.attributes.data import AttributeData
from facecaption_ml.flip.model.initialisation import seeded
from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.model.stem import ResidualStem
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.flip.pairs.reader import caption_id
from facecaption_ml.flip.training.evaluation import HeldOutRecall, held_out_recall
from facecaption_ml.flip.training.objectives import soft_target_alpha
from facecaption_ml.flip.training.optimisation import learning_rate, parameter_groups, warm_up_within
from facecaption_ml.flip.training.task import FlipTask
from facecaption_ml.photo_flip.faces import MappedFaces, caption_of, short_caption_of

_ENCODED_AT_ONCE: Final = 128
_CLIP_NORM: Final = 1.0
_SOFT_EPOCHS: Final = 2.0
_SORTED_TOGETHER: Final = 16  # batches
_ORDER_STREAM: Final = 0x0DE5


@dataclass(frozen=True)
class Plan:
    """How long and how fast. ``wordings``: captions written for each face, of which an epoch draws one; ``short``: how many of
    them name a few labels only. ``matched``: share of a batch in the matching loss."""

    epochs: int = 8
    batch_size: int = 64
    peak_learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warm_up_steps: int = 100
    momentum: float = 0.99
    soft_targets: float = 0.4
    queue_size: int = 0
    wordings: int = 4
    short: int = 1
    matched: float = 0.125
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """The best epoch's model and tokenizer, which epoch that was, and what each came to on the validation split."""

    model: FlipModel
    tokenizer: CaptionTokenizer
    epoch: int
    history: list[HeldOutRecall]


def train(
    faces: MappedFaces,
    stem: ResidualStem,
    preset: Preset,
    plan: Plan,
    on_epoch: Callable[[int, HeldOutRecall], None] | None = None,
) -> Trained:
    """Train on the faces' training split; equal arguments give equal weights. The epoch is chosen by the mean reciprocal rank
    of the validation split's full captions."""
    texts = training_texts(faces, plan)
    tokenizer = CaptionTokenizer.trained(
        (text for own in texts for text in own), preset.text.vocabulary, preset.text.max_tokens
    )
    with seeded(plan.seed):
        model = FlipModel(preset, tokenizer.vocabulary, stem=stem)
    torch.manual_seed(plan.seed)
    task = FlipTask(model, tokenizer.enc_id, plan.queue_size, plan.momentum, plan.seed, plan.matched).train()
    held_out = held_out_texts(faces.data, "validation")
    best, chosen, history = -1.0, 0, []
    kept: dict[str, Tensor] = {}
    for epoch in _epochs(task, faces, texts, tokenizer, plan):
        recall = recall_of(model, tokenizer, faces, "validation", held_out)
        history.append(recall)
        if on_epoch:
            on_epoch(epoch, recall)
        if recall.reciprocal_rank > best:
            best, chosen = recall.reciprocal_rank, epoch
            kept = {name: value.detach().clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)
    return Trained(model.eval(), tokenizer, chosen, history)


def training_texts(faces: MappedFaces, plan: Plan) -> list[list[str]]:
    """Captions of the training faces, in the split's order: ``wordings`` of each, the last ``short`` of them short."""
    texts = []
    for row in faces.data.rows["train"].tolist():
        labels = faces.data.labels[row]
        writers = [caption_of] * (plan.wordings - plan.short) + [short_caption_of] * plan.short
        texts.append([write(labels, plan.wordings * row + number) for number, write in enumerate(writers)])
    return texts


def _epochs(
    task: FlipTask, faces: MappedFaces, texts: list[list[str]], tokenizer: CaptionTokenizer, plan: Plan
) -> Iterator[int]:
    """Trains one epoch after another and gives its number."""
    rows = faces.data.rows["train"]
    steps_each = len(rows) // plan.batch_size
    steps = plan.epochs * steps_each
    warm_up = warm_up_within(plan.warm_up_steps, steps)
    optimiser = torch.optim.AdamW(parameter_groups(task.model, plan.weight_decay), lr=0.0, fused=True)
    step = 0
    for epoch in range(1, plan.epochs + 1):
        rng = np.random.default_rng((_ORDER_STREAM, plan.seed, epoch))
        written = rng.integers(plan.wordings, size=len(rows))
        of_epoch = [own[number] for own, number in zip(texts, written.tolist(), strict=True)]
        for places in _batches([len(text) for text in of_epoch], plan.batch_size, rng):
            maps = torch.from_numpy(faces.maps[rows[places], rng.integers(2, size=len(places))]).float()
            chosen = [of_epoch[place] for place in places.tolist()]
            rate = learning_rate(step, steps, plan.peak_learning_rate / 100, plan.peak_learning_rate, 1e-5, warm_up)
            alpha = soft_target_alpha(step, steps_each, plan.soft_targets, _SOFT_EPOCHS)
            _step(task, optimiser, tokenizer, maps, chosen, rate, alpha)
            step += 1
        yield epoch


def _batches(lengths: list[int], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Places int64 [size] of an epoch's whole batches, in random order; texts of a batch are about equally long, since a batch
    is as wide as its longest: some batches' worth of random places are sorted together."""
    order = rng.permutation(len(lengths))[: len(lengths) // size * size]
    windows = np.split(order, range(_SORTED_TOGETHER * size, len(order), _SORTED_TOGETHER * size))
    by_length = [window[np.argsort(np.array(lengths)[window], kind="stable")] for window in windows]
    batches = [batch for window in by_length for batch in np.split(window, len(window) // size)]
    return [batches[number] for number in rng.permutation(len(batches))]


def _step(
    task: FlipTask,
    optimiser: torch.optim.Optimizer,
    tokenizer: CaptionTokenizer,
    maps: Tensor,
    texts: list[str],
    rate: float,
    alpha: float,
) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate
    tokens = tokenizer(texts)
    ids = torch.tensor([caption_id(text) for text in texts])
    losses = task(maps, tokens.ids, tokens.mask, ids, alpha)
    optimiser.zero_grad(set_to_none=True)
    losses.total.backward()
    nn.utils.clip_grad_norm_([p for p in task.model.parameters() if p.requires_grad], _CLIP_NORM)
    optimiser.step()
    task.after_step()


@torch.inference_mode()
def image_features(model: FlipModel, faces: MappedFaces, rows: np.ndarray) -> np.ndarray:
    """Unit rows float32 [N, D] of the faces as they are."""
    training = model.training
    model.eval()
    parts = [
        model.image_features(
            model.image_tokens(torch.from_numpy(faces.maps[rows[start : start + _ENCODED_AT_ONCE], 0]))
        )
        for start in range(0, len(rows), _ENCODED_AT_ONCE)
    ]
    model.train(training)
    return torch.cat(parts).numpy()


@torch.inference_mode()
def text_features(model: FlipModel, tokenizer: CaptionTokenizer, texts: list[str]) -> np.ndarray:
    """Unit rows float32 [N, D]."""
    training = model.training
    model.eval()
    parts = []
    for start in range(0, len(texts), _ENCODED_AT_ONCE):
        tokens = tokenizer(texts[start : start + _ENCODED_AT_ONCE])
        parts.append(model.text_features(model.text_tokens(tokens.ids, tokens.mask)))
    model.train(training)
    return torch.cat(parts).numpy()


def held_out_texts(data: AttributeData, split: str) -> list[str]:
    """A full caption of each face of a split; its row in the folder is the seed."""
    return [caption_of(data.labels[row], row) for row in data.rows[split].tolist()]


def recall_of(
    model: FlipModel, tokenizer: CaptionTokenizer, faces: MappedFaces, split: str, texts: list[str]
) -> HeldOutRecall:
    """Retrieval among all pairs of a split, one text for each of its faces."""
    images = image_features(model, faces, faces.data.rows[split])
    return held_out_recall(images, text_features(model, tokenizer, texts), [caption_id(text) for text in texts])
