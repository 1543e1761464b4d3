"""What vLLM's engine is told: the arguments that matter for batches and memory, and any other by its own name."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_OURS: Final = ("model",)
"""Arguments that other options decide."""
_LEFT_TO_VLLM: Final = "not set: vLLM's own"


def _json_object(value: Any) -> dict[str, Any]:
    """Engine arguments, given as a JSON text or as a mapping. Raises ValueError with one line that says what is wrong."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "{}")
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError('it should be a JSON object such as {"kv_cache_dtype": "fp8"}')
    named = [name for name in value if name in (*_OURS, *VllmOptions.model_fields)]
    if named:
        raise ValueError(f"{named[0]!r} cannot be set here: it has a setting of its own")
    return value


class VllmOptions(BaseModel):
    """Of the engine in this process; what has a name of vLLM's means what it means there (``EngineArgs``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_at_once: int = Field(
        4096,
        ge=1,
        description="captions handed to the engine in one call; the more, the fuller its batches to the end. Answers are kept "
        "after each call",
    )
    max_num_seqs: int | None = Field(
        None, ge=1, description="captions that the engine writes at once; not set: as many as LLM_BATCH_SIZE says"
    )
    max_num_batched_tokens: int | None = Field(
        None, ge=1, description=f"tokens of one step, of prompts and answers together; {_LEFT_TO_VLLM}"
    )
    gpu_memory_utilization: float | None = Field(
        None, gt=0, le=1, description=f"share of the GPU's memory for weights and attention states; {_LEFT_TO_VLLM}"
    )
    max_model_len: int | None = Field(
        None,
        ge=1,
        description="longest prompt and answer, tokens; less leaves room for more at once; not set: the model's",
    )
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share the model; a step's pod has one")
    dtype: str = Field("auto", description="number type of the weights: auto, bfloat16, float16, float32")
    quantization: str = Field("", description="how the weights are quantized (awq, gptq, fp8 …); '': as the model says")
    enable_prefix_caching: bool = Field(
        True, description="attention states of the instructions, the same for every face, are computed once"
    )
    engine_args: Annotated[dict[str, Any], BeforeValidator(_json_object)] = Field(
        default_factory=dict,
        description='JSON object of any other argument of vLLM\'s engine, such as {"kv_cache_dtype": "fp8"}',
    )

    @property
    def idle(self) -> frozenset[str]:
        """The fields that are as vLLM has them: with them nothing was made in another way than without these options."""
        fields = type(self).model_fields
        return frozenset(
            name for name, info in fields.items() if getattr(self, name) == info.get_default(call_default_factory=True)
        )

    def arguments(self, batch_size: int) -> dict[str, Any]:
        """The keyword arguments of ``vllm.LLM`` beside the model; those that are left to vLLM are not among them."""
        own = self.model_dump(exclude={"requests_at_once", "engine_args"}, exclude_none=True)
        given = {"max_num_seqs": batch_size, **own, **self.engine_args}
        return {name: value for name, value in given.items() if value != ""}


def unknown_arguments(arguments: Collection[str], known: Collection[str]) -> list[str]:
    """A line for each argument that the engine does not have, with the name that may have been meant."""
    lines = []
    for name in sorted(set(arguments) - set(known)):
        near = difflib.get_close_matches(name, known, 1)
        lines.append(f"no argument {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
    return lines
