"""Captions with vLLM in this process, for GPU hosts: an engine that batches by itself, no server."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from facecaption_ml.captions.backends.chat import Answer, ChatModelError, ChatRequest, Sampling
from facecaption_ml.captions.backends.completion import read_completion
from facecaption_ml.captions.backends.vllm_options import VllmOptions, unknown_arguments

if TYPE_CHECKING:
    from facecaption_ml.captions.backends.options import ChatOptions


class VllmChatModel:
    """A ChatModel over ``vllm.LLM.chat``; ``model`` is a Hugging Face name or a folder.

    One call of ``LLM.chat`` has all requests that ``answer`` is given: the engine takes up waiting ones as others end
    (continuous batching), ``max_num_seqs`` at once, and answers in the order asked. A request's seed goes into its own
    SamplingParams, but what else is in a batch can change the last bits of its logits. A prompt longer than the model's
    context ends the batch with vLLM's error. The engine lives until ``close``, for all shards of a run.

    Written from the documentation and source of vLLM 0.8 to 0.30. Of 0.30 the package was loaded, took all arguments and
    looked for a GPU; no model was run by it, which needs a GPU host.

    ``batch_size``: captions written at once, where ``options`` do not say. Raises ChatModelError where vllm is not installed,
    does not have one of the options, or cannot load the model.
    """

    supports_constraints = False
    batched = True

    def __init__(self, model: str, *, batch_size: int = 64, options: VllmOptions | None = None) -> None:
        try:
            self._vllm = import_module("vllm")
        except ImportError:
            raise ChatModelError("vLLM is not installed: pip install 'facecaption[vllm]'") from None
        arguments = (options or VllmOptions()).arguments(batch_size)
        self._require_known(arguments)
        try:
            self._llm = self._vllm.LLM(model=model, **arguments)
        except Exception as error:  # vLLM raises its workers' exceptions, of any class
            raise self._not_loaded(model, error) from error
        self.model_id = model

    @classmethod
    def from_options(cls, options: ChatOptions, **_: Any) -> VllmChatModel:
        """See ``options.open_chat_model``; vLLM finds its devices itself."""
        return cls(options.model, batch_size=options.batch_size, options=options.vllm)

    def _require_known(self, arguments: dict[str, Any]) -> None:
        """Before minutes of loading: vLLM's own error of a wrong argument names a class of its own, and no setting."""
        known = [field.name for field in dataclasses.fields(self._vllm.EngineArgs)]
        lines = unknown_arguments(arguments, known)
        if lines:
            version = getattr(self._vllm, "__version__", "")
            raise ChatModelError(f"vLLM {version} has {'; '.join(lines)}", option="vllm_engine_args")

    @staticmethod
    def _not_loaded(model: str, error: Exception) -> ChatModelError:
        """Without a GPU vLLM says "Device string must not be empty", whatever the model."""
        import torch

        reason = " ".join(str(error).split())[:200]
        if not torch.cuda.is_available():
            return ChatModelError(f"vLLM does not start ({reason}): torch finds no GPU on this host", option="backend")
        return ChatModelError(f"model {model!r} does not load in vLLM: {reason}", option="model")

    def answer(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[Answer]:
        """An answer for each request, in their order, by one call of the engine."""
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
        return [_answer(output) for output in self._llm.chat(messages, params, use_tqdm=False)]

    def close(self) -> None:
        """Drop the engine, and with it the GPU's memory."""
        self._llm = None


def _answer(output: Any) -> Answer:
    """What the engine gives of one request, with the tokens that it took."""
    completion = output.outputs[0]
    answer = read_completion(completion.text, completion.finish_reason)
    prompt, written = output.prompt_token_ids, completion.token_ids
    return dataclasses.replace(answer, prompt_tokens=len(prompt or ()), completion_tokens=len(written or ()))
