"""The backends by name. A new one is a file with a ChatModel that has ``from_options``, and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NONE: Final = "none"
"""The name under which nobody writes."""

VLLM: Final = "vllm"
"""The name of the engine that batches by itself."""

# Module of this room and class, imported when asked for: each brings libraries that the others do without.
BACKENDS: Final[Mapping[str, str]] = {
    "local": "local_chat:LocalChatModel",
    "endpoint": "endpoint:EndpointChatModel",
    VLLM: "vllm_offline:VllmChatModel",
}
GUIDABLE: Final = frozenset({"local"})
"""Those that can decode under a constraint (``ChatModel.supports_constraints``)."""
