"""The finished checkpoint of a training: weights, tokenizer, configuration, log and model card, in the store."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

from facecaption_ml.flip.model.bundled_towers import described
from facecaption_ml.flip.model.files import CARD, CONFIG, MODEL, MODEL_TYPE, README, REFUSAL, sha256_of
from facecaption_ml.flip.model.presets import FROM_SCRATCH, Preset
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.flip.training.evaluation import KS, HeldOutRecall
from facecaption_ml.flip.training.progress import LOG, TENSORBOARD
from facecaption_ml.markdown import markdown_table
from facecaption_ml.pair_matching import MISMATCHED
from facecaption_ml.pretrained import weights_version
from facecaption_ml.storage.store import Store

_CREDENTIALS: Final = frozenset({"aws_access_key_id", "aws_secret_access_key", "aws_session_token"})
_TEXTS: Final = {
    "caption": "the data set's captions (LLM rewrites, templates where a rewrite was not kept)",
    "template_caption": "template captions (FLIP* of the paper)",
    "alt_text": "the source's alt text (FLIP† of the paper)",
}


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training came to. ``recalls`` by split (validation, test) where there are held-out pairs."""

    version: str
    steps: int
    best_epoch: int
    recalls: Mapping[str, HeldOutRecall]
    config: Mapping[str, Any]


def write_checkpoint(
    *,
    store: Store,
    training: TrainingConfig,
    preset: Preset,
    weights: Path,
    tokenizer: CaptionTokenizer,
    work: Path,
    best_epoch: int,
    recalls: Mapping[str, HeldOutRecall],
    matching: Mapping[str, float],
    facts: Mapping[str, Any],
) -> TrainingOutcome:
    """Put the checkpoint of a finished training under ``training.prefix``.

    ``config.json`` goes first and comes last, so that no one reads half of one checkpoint and half of another.
    ``matching``: the matching head's AUC by split. ``facts``: parameters, steps, pairs, data_version, excluded (counts by
    reason), truncated, undecodable, processes, precision.
    """
    version = weights_version(weights)
    config = {
        "model_type": MODEL_TYPE,
        **REFUSAL,
        "version": version,
        "sha256": sha256_of(weights),
        "preset": preset.as_dict(),
        "best_epoch": best_epoch,
        "held_out": {split: recall.as_dict() for split, recall in recalls.items()},
        "matching_auc": dict(matching),
        "versions": dict(training.versions),
        "training": _published(training),
        **facts,
    }
    card = model_card(training, preset, config, recalls)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tokenizer.save(folder)
        (folder / CARD).write_text(card, encoding="utf-8")
        (folder / README).write_text(front_matter(preset) + card, encoding="utf-8")
        shutil.copy(work / LOG, folder / LOG)
        shutil.copytree(work / TENSORBOARD, folder / TENSORBOARD)
        store.delete(f"{training.prefix}/{CONFIG}")
        with store.writing_file(f"{training.prefix}/{MODEL}") as path:
            shutil.copyfile(weights, path)
        for key in store.keys(f"{training.prefix}/{TENSORBOARD}/"):
            store.delete(key)
        store.upload_folder(folder, training.prefix)
    store.write_bytes(f"{training.prefix}/{CONFIG}", json.dumps(config, indent=1).encode())
    return TrainingOutcome(version, facts["steps"], best_epoch, recalls, config)


def front_matter(preset: Preset) -> str:
    """What model hubs read at the head of a README.md."""
    return (
        "---\nlanguage: en\nlibrary_name: facecaption\npipeline_tag: zero-shot-image-classification\n"
        f"tags: [flip, face, image-text-retrieval, image-text-matching, {preset.name}]\n---\n\n"
    )


def model_card(
    training: TrainingConfig, preset: Preset, config: Mapping[str, Any], recalls: Mapping[str, HeldOutRecall]
) -> str:
    """The Markdown of ``MODEL_CARD.md``."""
    options = training.options
    starts = (
        {"all": options.init}
        if options.init
        else {
            "image": described(options.image_init, preset.name),
            "text": options.text_init,
        }
    )
    template = Template(files("facecaption_ml.flip.training").joinpath("model_card.md").read_text("utf-8"))
    return template.substitute(
        variant=training.variant,
        version=config["version"],
        text=_TEXTS[training.text_column],
        preset=preset.name,
        parameters=f"{config['parameters'] / 1e6:.1f}M",
        size=preset.image.size,
        max_tokens=preset.text.max_tokens,
        init=", ".join(
            f"{tower}: {'random weights' if start == FROM_SCRATCH else start}" for tower, start in starts.items()
        ),
        pairs=f"{config['pairs']:,}",
        shards=len(training.shards),
        data_version=config["data_version"],
        excluded=", ".join(f"{count:,} {reason}" for reason, count in config["excluded"].items()) or "nothing",
        truncated=f"{config['truncated']:,}",
        undecodable=f"{config['undecodable']:,}",
        steps=f"{config['steps']:,}",
        epochs=options.epochs,
        global_batch=options.batch_size * options.accumulation * config["processes"],
        seed=training.seed,
        epoch=config["best_epoch"],
        precision=config["precision"],
        versions=", ".join(f"{name} {version}" for name, version in training.versions.items()) or "not given",
        recalls=markdown_table(
            ("split", "pairs", "direction", *(f"R@{k}" for k in KS)),
            _recall_rows(recalls) or [["–", "0", "–", *["–"] * len(KS)]],
            "lrl" + "r" * len(KS),
        ),
        matching=", ".join(f"{auc:.3f} ({split})" for split, auc in config["matching_auc"].items()) or "not measured",
        mismatched=MISMATCHED,
        projection=preset.projection,
    )


def _published(training: TrainingConfig) -> dict[str, Any]:
    """The configuration without credentials, which do not belong there but might be."""
    published: dict[str, Any] = json.loads(training.to_json())
    for name in _CREDENTIALS & published["storage_options"].keys():
        del published["storage_options"][name]
    return published


def _recall_rows(recalls: Mapping[str, HeldOutRecall]) -> list[list[str]]:
    rows = []
    for split, recall in recalls.items():
        sides = {"image → text": recall.image_to_text, "text → image": recall.text_to_image, "chance": recall.chance}
        for side, values in sides.items():
            assert len(values) == len(KS)
            rows.append([split, f"{recall.pairs:,}", side, *(f"{100 * value:.1f} %" for value in values)])
    return rows
