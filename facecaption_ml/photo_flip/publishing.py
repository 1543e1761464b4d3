"""The files of the finished checkpoint: weights at a byte each, tokenizer, configuration, figures and card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

from safetensors.torch import save_file

from facecaption_ml.attributes.data import AttributeData
from facecaption_ml.eight_bits import packed
from facecaption_ml.flip import Flip
from facecaption_ml.flip.model.files import CARD, CONFIG, MODEL, MODEL_TYPE, README, REFUSAL, sha256_of
from facecaption_ml.flip.model.weight_names import stable_state
from facecaption_ml.flip.training.export import front_matter
from facecaption_ml.flip.use.encoding import FlipError
from facecaption_ml.markdown import markdown_table
from facecaption_ml.photo_flip.evaluation import Evaluation
from facecaption_ml.photo_flip.faces import MappedFaces
from facecaption_ml.photo_flip.training import Plan, Trained
from facecaption_ml.search.ways import WAYS

EVALUATION: Final = "evaluation.json"


def write_model(out: Path, trained: Trained, faces: MappedFaces, plan: Plan, predictor: str, command: str) -> Flip:
    """Write weights, tokenizer and configuration to the folder ``out``, and read them back: what is measured is kept."""
    out.mkdir(parents=True, exist_ok=True)
    save_file(packed(stable_state(trained.model)), out / MODEL)
    trained.tokenizer.save(out)
    digest = sha256_of(out / MODEL)
    config = {
        "model_type": MODEL_TYPE,
        **REFUSAL,
        "version": digest[:12],
        "sha256": digest,
        "preset": trained.model.preset.as_dict(),
        "best_epoch": trained.epoch,
        "parameters": trained.model.parameter_count(),
        "data": faces.data.name,
        "data_version": faces.data.fingerprint,
        "stem": f"network tiny of the attribute checkpoint {predictor}",
        "plan": asdict(plan),
        "command": command,
    }
    (out / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    return Flip.load(out, device="cpu", precision="fp32")


def history_of(out: Path) -> list[dict[str, Any]]:
    """What each epoch came to, of a checkpoint that is measured again. Raises FlipError where nothing says so."""
    try:
        return list(json.loads((out / EVALUATION).read_text(encoding="utf-8"))["history"])
    except (OSError, ValueError, KeyError) as error:
        raise FlipError(f"{out / EVALUATION} has no history: train the checkpoint with this command first") from error


def write_card(
    out: Path, flip: Flip, data: AttributeData, evaluation: Evaluation, history: Sequence[Mapping[str, Any]]
) -> None:
    """Write what was measured: ``evaluation.json``, the weight of FLIP into the configuration, and the card."""
    config = {**flip.config, "search": {"weight": evaluation.weight, "by": evaluation.best}}
    (out / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
    (out / EVALUATION).write_text(json.dumps({**evaluation.as_dict(), "history": history}, indent=1), encoding="utf-8")
    plan = Plan(**config["plan"])
    preset = flip.preset
    card = Template(files("facecaption_ml.photo_flip").joinpath("card.md").read_text("utf-8")).substitute(
        version=flip.version, parameters=f"{config['parameters'] / 1e6:.2f}M", size=preset.image.size,
        image_layers=preset.image.layers, text_layers=preset.text.layers, width=preset.image.width,
        max_tokens=preset.text.max_tokens, words=flip.tokenizer.vocabulary, data=data.name,
        faces=f"{len(data.rows['train']):,}", predictor=config["stem"].rpartition(" ")[2],
        megabytes=f"{(out / MODEL).stat().st_size / 1e6:.1f}",
        epoch=config["best_epoch"], epochs=plan.epochs, batch=plan.batch_size, wordings=plan.wordings, short=plan.short,
        matched=f"{100 * plan.matched:g}", seed=plan.seed, command=config["command"],
        weight=evaluation.weight, best=evaluation.best, labeller=evaluation.predictor,
        matching=", ".join(f"{value:.3f} ({split})" for split, value in evaluation.matching.items()),
        retrieval=_retrieval_table(evaluation), ways=_ways_table(evaluation),
    )  # fmt: skip
    (out / CARD).write_text(card, encoding="utf-8")
    (out / README).write_text(front_matter(preset) + card, encoding="utf-8")


def _retrieval_table(evaluation: Evaluation) -> str:
    rows = []
    for split, recall in evaluation.recalls.items():
        sides = {"text → image": recall.text_to_image, "image → text": recall.image_to_text, "chance": recall.chance}
        for side, values in sides.items():
            rows.append([split, f"{recall.pairs:,}", side, *(f"{100 * value:.1f} %" for value in values)])
    return markdown_table(("split", "pairs", "direction", "R@1", "R@5", "R@10"), rows, "lrlrrr")


def _ways_table(evaluation: Evaluation) -> str:
    rows = [
        [split, way, *(f"{100 * value:.1f} %" for value in own[way].recalls), f"{100 * own[way].right:.1f} %"]
        for split, own in evaluation.ways.items()
        for way in WAYS
    ]
    heads = ("split", "by", "R@1", "R@5", "R@10", "short captions: labels right among the best 8")
    return markdown_table(heads, rows, "llrrrr")
