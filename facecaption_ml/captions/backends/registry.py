"""The backends by name. A new one is a file with a ChatModel that has ``from_options``, and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from facecaption_ml.captions.backends.chat import ChatModel
    from facecaption_ml.captions.backends.options import ChatOptions

NONE: Final = "none"
"""The name under which nobody writes."""

# Module of this room and class, imported when asked for: each brings libraries that the others do without.
BACKENDS: Final[Mapping[str, str]] = {
    "local": "local_chat:LocalChatModel",
    "endpoint": "endpoint:EndpointChatModel",
    "vllm": "vllm_offline:VllmChatModel",
}


def open_chat_model(options: ChatOptions, *, device: str, threads: int, cache: Path) -> ChatModel:
    """The chat model that ``options.backend`` names.

    ``device``, ``threads`` (0: all cores) and ``cache``, a folder for unpacked weights, matter to models in this process.
    Raises ChatModelError where the options cannot be right or a package is missing, KeyError for the backend ``none``.
    """
    module, _, name = BACKENDS[options.backend].partition(":")
    backend: Any = getattr(import_module(f"{__package__}.{module}"), name)
    model: ChatModel = backend.from_options(options, device=device, threads=threads, cache=cache)
    return model
