"""The pairs, batches and tokenizer of one process of a training, from its configuration."""

from __future__ import annotations

from facecaption_ml.flip.model.initialisation import tokenizer_of
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.flip.pairs.index import PairIndex, PairSource
from facecaption_ml.flip.pairs.loader import PairLoader
from facecaption_ml.flip.pairs.splits import TrainingPairs, read_pairs
from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.flip.training.distributed import ProcessGroup


def training_pairs(config: TrainingConfig, preset: Preset, dist: ProcessGroup) -> TrainingPairs:
    """All pairs of the configured shards. Raises PairsError where there are none."""
    return read_pairs(
        PairSource(config.open_store(), config.shards, config.text_column, "train"),
        image_size=preset.image.size,
        held_out_pairs=config.options.evaluation_pairs,
        seed=config.seed,
        is_main_process=dist.is_main_process,
        broadcast=dist.broadcast,
    )


def training_loader(config: TrainingConfig, preset: Preset, pairs: PairIndex, dist: ProcessGroup) -> PairLoader:
    """This process's batches of ``pairs``. Raises PairsError where those are less than one global batch."""
    options = config.options
    return PairLoader(
        pairs,
        batch_size=options.batch_size,
        image_size=preset.image.size,
        seed=config.seed,
        rank=dist.rank,
        world_size=dist.count,
        augment=True,
        randaugment=options.augmentation,
        crop_area=options.crop_area,
        threads=options.loader_threads,
        process=options.loader_process,
        window_row_groups=options.window_row_groups,
    )


def training_tokenizer(
    config: TrainingConfig, preset: Preset, pairs: TrainingPairs, dist: ProcessGroup
) -> CaptionTokenizer:
    """That of the text tower's weights, else one learned from the pairs on the main process; equal on every process."""
    own = None
    if dist.is_main_process:
        options = config.options
        own = tokenizer_of(preset, options.text_init, pairs.texts, options.init).to_json()
    return CaptionTokenizer.from_json(dist.broadcast(own), preset.text.max_tokens)
