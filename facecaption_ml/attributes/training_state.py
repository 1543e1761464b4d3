"""What a killed training resumes from: everything that the next epoch depends on, in one file beside the weights."""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import nn

from facecaption_ml.attributes.checkpoints import WEIGHTS, read_weights
from facecaption_ml.storage.local_files import atomic_write

logger = logging.getLogger("facecaption")

STATE: Final = "training_state.pt"


@dataclass
class Progress:
    """How far a training has come; ``updates`` counts its steps."""

    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    validation_losses: list[np.ndarray] = field(default_factory=list)
    updates: int = 0


class Learned(NamedTuple):
    """What a training changes."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer


class TrainingState:
    """The state file in ``folder`` of the training of ``learned``; ``identity`` (plain values) says which training it is."""

    def __init__(self, folder: Path, learned: Learned, identity: dict[str, Any]) -> None:
        self._folder, self._learned, self._identity = folder, learned, identity

    def save(self, progress: Progress) -> None:
        state = {
            **self._identity,
            **{name: part.state_dict() for name, part in self._learned._asdict().items()},
            **vars(progress),
            "validation_losses": [losses.tolist() for losses in progress.validation_losses],
            "dropout_rng": torch.get_rng_state(),
        }
        with atomic_write(self._folder / STATE) as file:
            torch.save(state, file)

    def forget(self) -> None:
        (self._folder / STATE).unlink(missing_ok=True)

    def restore(self) -> Progress:
        """The progress after the last whole epoch of a training with the same identity; its parts are as they were then.

        Else that of a new training: a damaged state costs the epochs, not the training.
        """
        path = self._folder / STATE
        if not path.is_file():
            return Progress()
        network, average, optimizer = self._learned
        fresh = copy.deepcopy((network.state_dict(), average.state_dict()))
        try:
            progress = self._restore_from(torch.load(path, weights_only=True, map_location="cpu"))
        except Exception as error:  # damaged bytes make torch, zipfile and pickle raise almost anything
            network.load_state_dict(fresh[0])
            average.load_state_dict(fresh[1])
            optimizer.state.clear()
            logger.info("attribute_model: %s is damaged (%s); starting anew", path, type(error).__name__)
            return Progress()
        if progress:
            logger.info("attribute_model: resuming after epoch %d", progress.epoch)
            return progress
        logger.info("attribute_model: %s is of another training; starting anew", path)
        return Progress()

    def _restore_from(self, state: dict[str, Any]) -> Progress | None:
        """Take over ``state``; None where it is of another training. Raises what a damaged one makes of it."""
        whole = {
            "init": "",
            "teacher": "",
            "data": None,
            "rate_share": 1.0,
            **state,
        }  # earlier versions knew none of these
        if {name: whole[name] for name in self._identity} != self._identity:
            return None
        read_weights(self._folder / WEIGHTS)  # of the best epoch so far: what is published in the end
        for name, part in self._learned._asdict().items():
            part.load_state_dict(state[name])
        progress = Progress(**{name: state[name] for name in vars(Progress())})
        progress.validation_losses = [np.array(losses) for losses in state["validation_losses"]]
        torch.set_rng_state(state["dropout_rng"])
        return progress
