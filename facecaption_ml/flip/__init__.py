"""FLIP: facial language-image pre-training (paper §5.1): a ViT and a BERT, contrastive and matching losses."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facecaption_ml.flip.use.encoding import Flip, FlipError

__all__ = ["Flip", "FlipError"]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import: only who uses a model pays for them
    if name in __all__:
        from facecaption_ml.flip.use import encoding

        return getattr(encoding, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
