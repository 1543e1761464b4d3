"""Pictures as PNG files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def png(picture: np.ndarray) -> bytes:
    """RGB uint8 [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
