"""Which way of searching a FLIP checkpoint was measured to serve best, as its configuration says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from facecaption_ml.flip import Flip

WAYS: Final = ("labels", "flip", "both")


def measured_best(flip: Flip | None) -> str:
    """``labels``, ``flip`` or ``both``; ``labels`` for a checkpoint of which nothing was measured."""
    best = str(_measured(flip).get("by", ""))
    return best if best in WAYS else "labels"


def measured_weight(flip: Flip) -> float:
    """Of FLIP's scores beside those of labels; 1 for a checkpoint of which nothing was measured."""
    return float(_measured(flip).get("weight", 1.0))


def _measured(flip: Flip | None) -> dict[str, Any]:
    return dict(flip.config.get("search", {})) if flip else {}
