"""Captions with vLLM in this process, for GPU hosts: one batch, no server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from facecaption_ml.captions.backends.chat import Answer, ChatModelError, ChatRequest, Sampling
from facecaption_ml.captions.backends.completion import read_completion


class VllmChatModel:
    """A ChatModel over ``vllm.LLM.chat``; ``model`` is a Hugging Face name or a folder.

    Follows the API of vLLM 0.8 to 0.17: ``LLM(model, enable_prefix_caching=...)``, ``LLM.chat(list of conversations, list of
    SamplingParams of the same length, use_tqdm=...)`` answers in the order asked, and ``RequestOutput.outputs[0]`` has ``text``
    and ``finish_reason``. A request's seed goes into its own SamplingParams, but what else is in a batch can change the last
    bits of its logits. A prompt longer than the model's context ends the batch with vLLM's error. Written from vLLM's
    documentation and source and not run: that needs a GPU host.

    ``engine`` are further arguments of vllm.LLM: tensor_parallel_size, gpu_memory_utilization, quantization, max_model_len.
    Raises ChatModelError where vllm is not installed or cannot load the model.
    """

    def __init__(self, model: str, *, batch_size: int = 4096, **engine: Any) -> None:
        if batch_size < 1:
            raise ChatModelError(f"batch_size must be 1 or more, not {batch_size}")
        try:
            self._vllm = import_module("vllm")
        except ImportError:
            raise ChatModelError("vLLM is not installed: pip install 'facecaption[vllm]'") from None
        try:
            # The instructions are the same for every face: their attention states are computed once.
            self._llm = self._vllm.LLM(model=model, enable_prefix_caching=True, **engine)
        except Exception as error:  # vLLM raises its workers' exceptions, of any class
            reason = " ".join(str(error).split())[:200]
            raise ChatModelError(f"FACECAPTION_LLM_MODEL {model!r} does not load in vLLM: {reason}") from error
        self.model_id = model
        self.batch_size = batch_size

    def answer(
        self,
        requests: Sequence[ChatRequest],
        sampling: Sampling,
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """An answer for each request, in their order; ``on_answer`` is called after each batch of ``batch_size``."""
        answers: list[Answer] = []
        for start in range(0, len(requests), self.batch_size):
            batch = requests[start : start + self.batch_size]
            messages = [[{"role": role, "content": content} for role, content in one.messages] for one in batch]
            params = [
                self._vllm.SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens,
                    seed=one.seed,
                )
                for one in batch
            ]
            for output in self._llm.chat(messages, params, use_tqdm=False):
                completion = output.outputs[0]
                answers.append(read_completion(completion.text, completion.finish_reason))
                if on_answer:
                    on_answer(len(answers) - 1, answers[-1])
        return answers

    def close(self) -> None:
        """Drop the engine, and with it the GPU's memory."""
        self._llm = None
