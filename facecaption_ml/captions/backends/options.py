"""Which chat model writes, and how its texts are drawn."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from facecaption_ml.captions.backends.chat import ChatModel, Sampling
from facecaption_ml.captions.backends.registry import BACKENDS, NONE
from facecaption_ml.captions.backends.request_fields import checked_extra_body
from facecaption_ml.captions.backends.vllm_options import VllmOptions

_LONGEST_NAME: Final = 200


def _known_backend(name: str) -> str:
    names = [*BACKENDS, NONE]
    if name not in names:
        raise ValueError(f"no backend {name!r}: choose among {', '.join(names)}")
    return name


def _plain_name(name: str) -> str:
    if not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(f"a name has at most {_LONGEST_NAME} printable characters")
    return name.strip()


class ChatOptions(BaseModel):
    """Options of a chat model, whatever runs it; a backend ignores those that are not its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Annotated[str, AfterValidator(_known_backend)] = Field(
        "local",
        description="who rewrites captions: local (transformers in this process), endpoint (an OpenAI-compatible server), "
        "vllm (in this process), none",
    )
    model: str = Field(
        "Qwen/Qwen2.5-7B-Instruct",
        description="hub name, folder, GGUF file, the endpoint's name, or smollm2-135m-instruct",
    )
    model_name: Annotated[str, AfterValidator(_plain_name)] = Field(
        "",
        description="name of the model in the tables and in the kept answers' keys; '': as model has it (weights in this "
        "process: with a digest)",
    )
    endpoint: str = Field("", description="address that ends in /v1, for the backend 'endpoint'")
    api_key: SecretStr = Field(SecretStr(""), description="key of the endpoint")
    temperature: float = Field(
        Sampling.temperature,
        ge=0,
        description="0 takes the likeliest word each time; the higher, the more varied the texts",
    )
    top_p: float = Field(
        Sampling.top_p,
        gt=0,
        le=1,
        description="nucleus sampling: draw among the likeliest tokens that together reach this share",
    )
    max_new_tokens: int = Field(
        Sampling.max_new_tokens,
        ge=1,
        description="tokens at which an answer is cut off, and not taken; the budget of a thinking model's thoughts as well",
    )
    extra_body: Annotated[dict[str, Any], BeforeValidator(checked_extra_body)] = Field(
        default_factory=dict,
        description="JSON object merged into every request to the endpoint, such as "
        '{"chat_template_kwargs": {"enable_thinking": false}}; null leaves a field out',
    )
    batch_size: int = Field(64, ge=1, description="captions that the model writes at once (local, vllm)")
    concurrency: int = Field(16, ge=1, description="requests in flight at the endpoint")
    timeout_s: float = Field(60.0, gt=0, description="seconds that one request to the endpoint may take")

    client_errors: int = Field(
        8,
        ge=1,
        description="equal client errors (402, 400 …) of the endpoint in a row after which the run stops asking",
    )

    vllm: VllmOptions = Field(VllmOptions(), description="the engine of the backend 'vllm'")

    @property
    def sampling(self) -> Sampling:
        """How texts are drawn."""
        extra = json.dumps(self.extra_body, sort_keys=True)
        return Sampling(self.temperature, self.top_p, self.max_new_tokens, extra)


def open_chat_model(options: ChatOptions, *, device: str, threads: int, cache: Path) -> ChatModel:
    """The chat model that ``options.backend`` names.

    ``device``, ``threads`` (0: all cores) and ``cache``, a folder for unpacked weights, matter to models in this process.
    Raises ChatModelError where the options cannot be right or a package is missing, KeyError for the backend ``none``.
    """
    module, _, name = BACKENDS[options.backend].partition(":")
    backend: Any = getattr(import_module(f"{__package__}.{module}"), name)
    model: ChatModel = backend.from_options(options, device=device, threads=threads, cache=cache)
    return model
