"""One step of the authors' released forward, in numbers: equal weights and inputs give equal features, losses and gradients.

``data/flip_reference.safetensors`` holds weights in BLIP's names, inputs, and what came out of the authors' code in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from facecaption_ml.flip.model.foreign_names import renamed, translated
from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.presets import ImageTower, Preset, TextTower
from facecaption_ml.flip.model.weight_names import load_stable, stable_name
from facecaption_ml.flip.training import task as task_module
from facecaption_ml.flip.training.momentum import update_momentum
from facecaption_ml.flip.training.task import FlipTask, PairLosses

REFERENCE: Final = Path(__file__).parent / "data" / "flip_reference.safetensors"
PRESET: Final = Preset(
    "authors",
    ImageTower(size=32, patch=8, width=64, layers=3, heads=4, mlp_width=128, dropout=0.0),
    TextTower(vocabulary=200, max_tokens=65, width=64, layers=3, heads=4, mlp_width=128, dropout=0.0),
    projection=16,
    temperature=0.11,
)
ENC, ALPHA, MOMENTUM = 199, 0.4, 0.995


@pytest.fixture(scope="module")
def reference() -> Iterator[dict[str, Tensor]]:
    with safe_open(REFERENCE, "pt") as file:
        yield {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def part(reference: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in reference.items() if name.startswith(prefix)}


def loaded(weights: dict[str, Tensor]) -> FlipModel:
    model = FlipModel(PRESET, 200)
    own = translated(weights)
    token_types = "text.embeddings.token_type_embeddings.weight"  # the authors have none: of kind 0, nothing is added
    load_stable(model, {**own, token_types: torch.zeros(2, PRESET.text.width)})
    return model


def most_likely(similarity: Tensor, own_ids: Tensor, candidate_ids: Tensor, generator: Any = None) -> Tensor:
    """In the place of a draw, as in the reference."""
    return similarity.masked_fill(own_ids[:, None] == candidate_ids, -torch.inf).argmax(1)


@pytest.fixture(scope="module")
def step(reference: dict[str, Tensor]) -> Iterator[tuple[FlipTask, PairLosses, dict[str, Tensor]]]:
    """The step's task and losses, and the negatives that it drew."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    weights = part(reference, "weights.")
    trained = {name: value for name, value in weights.items() if "_m." not in name}
    task = FlipTask(loaded(trained), ENC, len(reference["queue.image"]), MOMENTUM, 0).train()
    momentum = {name.replace("_m.", "."): value for name, value in weights.items() if "_m." in name}
    averaged = copy.deepcopy(loaded({**trained, **momentum}))
    for name, value in task.momentum_model.named_parameters():
        value.data.copy_(dict(averaged.named_parameters())[name])
    update_momentum(task.model, task.momentum_model, MOMENTUM)  # the authors do so before the step, here it comes after
    queued = len(reference["queue.image"])
    task.queue.enqueue(reference["queue.image"], reference["queue.text"], torch.arange(queued) - 1000)
    drawn: dict[str, Tensor] = {}

    def draw(similarity: Tensor, *given: Any) -> Tensor:
        chosen = most_likely(similarity, *given)
        drawn["text of image" if drawn else "image of text"] = chosen
        return chosen

    inputs = part(reference, "input.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_module, "draw_hard_negatives", draw)
        losses = task(inputs["pixels"], inputs["ids"], inputs["mask"].bool(), inputs["caption_ids"], ALPHA)
    losses.total.backward()
    yield task, losses, drawn
    torch.set_num_threads(threads)


def test_both_losses_are_the_authors(
    reference: dict[str, Tensor], step: tuple[FlipTask, PairLosses, dict[str, Tensor]]
) -> None:
    _, losses, _ = step
    assert losses.contrastive.item() == pytest.approx(reference["expected.itc"].item(), rel=1e-6)
    assert losses.matching.item() == pytest.approx(reference["expected.itm"].item(), rel=1e-6)


def test_the_most_likely_negatives_are_the_authors(
    reference: dict[str, Tensor], step: tuple[FlipTask, PairLosses, dict[str, Tensor]]
) -> None:
    _, _, drawn = step
    found = torch.cat([drawn["image of text"], drawn["text of image"]])
    assert found.tolist() == reference["expected.negatives"].tolist()


def test_features_and_match_logits_are_the_authors(
    reference: dict[str, Tensor], step: tuple[FlipTask, PairLosses, dict[str, Tensor]]
) -> None:
    model = step[0].model
    inputs = part(reference, "input.")
    mask = inputs["mask"].bool()
    multimodal = inputs["ids"].clone()
    multimodal[:, 0] = ENC
    with torch.no_grad():
        tokens = model.image_tokens(inputs["pixels"])
        found = {
            "image_features": model.image_features(tokens),
            "text_features": model.text_features(model.text_tokens(inputs["ids"], mask)),
            "match_logits": model.match_logits(multimodal, mask, tokens),
        }
    for name, value in found.items():
        torch.testing.assert_close(value.double(), reference[f"expected.{name}"], rtol=0, atol=1e-5)


def test_every_gradient_has_the_authors_norm(
    reference: dict[str, Tensor], step: tuple[FlipTask, PairLosses, dict[str, Tensor]]
) -> None:
    model = step[0].model
    found = {stable_name(name): p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
    norms = part(reference, "gradient_norm.")
    assert len(norms) == 131
    for name, expected in norms.items():
        if name == "temp":  # its logarithm is learned here: d/d log t = t · d/dt
            gradients = [found["log_temperature"] / model.temperature.detach().double()]
        elif name.endswith((".qkv.weight", ".qkv.bias")):
            own = renamed(name)
            assert own is not None
            gradients = [found[own.replace(".qkv.", f".{kind}.")] for kind in ("query", "key", "value")]
        else:
            own = renamed(name)
            assert own is not None
            gradients = [found[own]]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
        # a key's bias moves all similarities of a query alike: its gradient is 0 but for rounding
        assert norm == pytest.approx(expected.item(), rel=1e-4, abs=1e-7), name
