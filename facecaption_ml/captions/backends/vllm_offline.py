"""Captions with vLLM in this process, for GPU hosts: one batch, no server."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from facecaption_ml.captions.backends.chat import Answer, ChatModelError, ChatRequest, Sampling
from facecaption_ml.captions.backends.completion import read_completion

if TYPE_CHECKING:
    from facecaption_ml.captions.backends.options import ChatOptions


class VllmChatModel:
    """A ChatModel over ``vllm.LLM.chat``; ``model`` is a Hugging Face name or a folder.

    Follows the API of vLLM 0.8 to 0.17: ``LLM(model, enable_prefix_caching=..., max_num_seqs=...)``, ``LLM.chat(list of
    conversations, list of SamplingParams of the same length, use_tqdm=...)`` answers in the order asked, and
    ``RequestOutput.outputs[0]`` has ``text`` and ``finish_reason``. A request's seed goes into its own SamplingParams, but
    what else is in a batch can change the last bits of its logits. A prompt longer than the model's context ends the batch
    with vLLM's error. Written from vLLM's documentation and source and not run: that needs a GPU host.

    ``batch_size``: captions written at once, vLLM's ``max_num_seqs``. ``engine`` are further arguments of vllm.LLM:
    tensor_parallel_size, gpu_memory_utilization, quantization, max_model_len.
    Raises ChatModelError where vllm is not installed or cannot load the model.
    """

    supports_constraints = False
    batched = True

    def __init__(self, model: str, *, batch_size: int = 64, **engine: Any) -> None:
        try:
            self._vllm = import_module("vllm")
        except ImportError:
            raise ChatModelError("vLLM is not installed: pip install 'facecaption[vllm]'") from None
        try:
            # The instructions are the same for every face: their attention states are computed once.
            self._llm = self._vllm.LLM(model=model, enable_prefix_caching=True, max_num_seqs=batch_size, **engine)
        except Exception as error:  # vLLM raises its workers' exceptions, of any class
            reason = " ".join(str(error).split())[:200]
            raise ChatModelError(f"model {model!r} does not load in vLLM: {reason}", option="model") from error
        self.model_id = model

    @classmethod
    def from_options(cls, options: ChatOptions, **_: Any) -> VllmChatModel:
        """See ``options.open_chat_model``; vLLM finds its devices itself."""
        return cls(options.model, batch_size=options.batch_size)

    def answer(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[Answer]:
        """An answer for each request, in their order; vLLM batches them."""
        messages = [[{"role": role, "content": content} for role, content in one.messages] for one in requests]
        params = [
            self._vllm.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_new_tokens,
                seed=one.seed,
            )
            for one in requests
        ]
        completions = [output.outputs[0] for output in self._llm.chat(messages, params, use_tqdm=False)]
        return [read_completion(completion.text, completion.finish_reason) for completion in completions]

    def close(self) -> None:
        """Drop the engine, and with it the GPU's memory."""
        self._llm = None
