"""Chat models in this process, through transformers: batches with a common prompt prefix, left padding, a seed a row."""

from __future__ import annotations

import contextlib
import ctypes
import math
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from facecaption_ml.captions import checkpoints
from facecaption_ml.captions.chat import Answer, ChatRequest, Failure, Sampling
from facecaption_ml.captions.completion import read_completion
from facecaption_ml.captions.guidance import Guide, Marks, Node

if TYPE_CHECKING:
    import torch

    from facecaption_ml.captions.shared_prefix import SharedPrefix

_REFUSALS: Final = 24  # words that a guide may turn down before the text counts as stuck
_NEWS_BONUS: Final = 1.0  # logits for words that say what is not yet said; small models forget
_SHRINK: Final = 0.75  # share of rows under way at which the others leave the batch
_MOST_GUIDED_TOKENS: Final = 110

Message = tuple[str, str]


@dataclass
class _Row:
    """One answer under way."""

    index: int
    ids: list[int]
    rng: random.Random
    guide: Guide | None
    generated: list[int] = field(default_factory=list)
    log_probability: float = 0.0
    ended: bool = False
    stuck: bool = False


class LocalChatModel:
    """A chat model loaded with transformers; see :func:`checkpoints.load_chat_model` for the names it takes.

    Rows with equal messages before the last one share that prefix's keys and values (``shared_prefix``); they are batched by
    length. A row's draws depend on its seed alone, and rounding aside its probabilities on its own prompt alone.
    """

    def __init__(self, model: str, cache: Path, device: str = "cpu", batch_size: int = 64, threads: int = 1) -> None:
        self.model_id = checkpoints.model_id(model, device)
        self._name, self._cache, self._device, self._batch_size = model, cache, device, batch_size
        # On a CPU batches run side by side, a thread each: the products of one decoding step are too small to share.
        self._workers = max(threads, 1) if device == "cpu" else 1
        self._loaded = False

    def _load(self) -> None:
        if self._loaded:
            return
        self._model, self._tokenizer = checkpoints.load_chat_model(self._name, self._cache, self._device)
        self._tokenizer.padding_side = "left"
        # The threads live as long as the model: each keeps buffers of the matrix library, which are not freed with it.
        self._pool = ThreadPoolExecutor(self._workers)
        self._words: dict[str, tuple[int, ...]] = {}
        stops = self._model.generation_config.eos_token_id
        ends = {self._tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])}
        self._ends = frozenset(token for token in ends if token is not None)
        self._marks = Marks(self._encode(",")[0], self._encode(".")[0], self._tokenizer.eos_token_id)
        from facecaption_ml.captions import shared_prefix

        self._shares = shared_prefix.supports(self._model)
        if self._shares:
            shared_prefix.prepare(self._model)
        self._loaded = True

    def answer(
        self,
        requests: Sequence[ChatRequest],
        sampling: Sampling,
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """An answer for each request, in their order; ``on_answer`` batch by batch, in the caller's thread.

        Raises ChatModelError where the model cannot be loaded.
        """
        if not requests:
            return []
        self._load()
        _return_memory()
        answers: list[Answer | None] = [None] * len(requests)
        with _quick_thread_switches():
            batches = [self._pool.submit(self._generate, *batch, sampling) for batch in self._batches(requests)]
            for batch in batches:
                for row in batch.result():
                    answers[row.index] = found = self._read(row)
                    if on_answer:
                        on_answer(row.index, found)
        _return_memory()
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """Let go of the weights."""
        if self._loaded:
            self._pool.shutdown()
            del self._model
            self._loaded = False

    def _batches(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[SharedPrefix | None, list[_Row]]]:
        """Rows with one prefix, by length."""
        import torch

        from facecaption_ml.captions import shared_prefix

        by_prefix: dict[tuple[Message, ...], list[int]] = {}
        for index, request in enumerate(requests):
            by_prefix.setdefault(request.messages[:-1], []).append(index)
        for shared, indices in by_prefix.items():
            ids, rows = self._prompts(shared, requests, indices)
            prefix = None
            if ids:
                with torch.inference_mode():
                    prefix = shared_prefix.encode(self._model, torch.tensor([ids], device=self._device))
            rows.sort(key=lambda row: (len(row.ids), row.index))
            for start in range(0, len(rows), self._batch_size):
                yield prefix, rows[start : start + self._batch_size]

    def _encode(self, text: str) -> tuple[int, ...]:
        if text not in self._words:
            self._words[text] = tuple(self._tokenizer(text, add_special_tokens=False).input_ids)
        return self._words[text]

    def _prompts(
        self, shared: Sequence[Message], requests: Sequence[ChatRequest], indices: Iterable[int]
    ) -> tuple[list[int], list[_Row]]:
        """The token ids that all rows begin with (none where they cannot be told apart), and the rows with the rest."""
        texts = {index: self._rendered(requests[index].messages, ask=True) for index in indices}
        head = self._rendered(shared, ask=False) if shared and self._shares else ""
        first = next(iter(texts.values()))
        split = all(text.startswith(head) for text in texts.values()) and (
            [*self._encode(head), *self._encode(first[len(head) :])] == list(self._encode(first))
        )
        head = head if split else ""
        rows = []
        for index, text in texts.items():
            request = requests[index]
            guide = request.guide(self._encode, self._marks) if request.guide else None
            ids = self._tokenizer(text[len(head) :], add_special_tokens=False).input_ids
            rows.append(_Row(index, ids, random.Random(request.seed), guide))
        return list(self._encode(head)) if head else [], rows

    def _rendered(self, messages: Sequence[Message], ask: bool) -> str:
        turns = [{"role": role, "content": content} for role, content in messages]
        return str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=ask, tokenize=False))

    def _generate(self, prefix: SharedPrefix | None, rows: list[_Row], sampling: Sampling) -> list[_Row]:
        """Write the rows' answers token by token; rows that have ended leave the batch."""
        import torch
        from transformers import DynamicCache

        from facecaption_ml.captions import shared_prefix

        if self._device == "cpu":
            torch.set_num_threads(1)  # of this worker
        longest = max(len(row.ids) for row in rows)
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._marks.end
        ids = torch.tensor([[pad] * (longest - len(row.ids)) + row.ids for row in rows], device=self._device)
        mask = torch.tensor([[0] * (longest - len(row.ids)) + [1] * len(row.ids) for row in rows], device=self._device)
        with torch.inference_mode():
            places = (prefix.tokens if prefix else 0) + (mask.cumsum(1) - 1).clamp(min=0)
            cache, active = DynamicCache(), list(rows)
            with shared_prefix.using(prefix):
                for _ in range(max(sampling.max_new_tokens, _MOST_GUIDED_TOKENS)):
                    logits = self._model(
                        input_ids=ids,
                        attention_mask=mask,
                        position_ids=places,
                        past_key_values=cache,
                        use_cache=True,
                        logits_to_keep=1,
                    ).logits[:, -1]
                    tokens = self._draw(logits, active, sampling)
                    going = [k for k, row in enumerate(active) if not (row.ended or row.stuck)]
                    if not going:
                        break
                    # Not at every end: each new shape costs the matrix kernels time and memory.
                    if len(going) <= _SHRINK * len(active):
                        keep = torch.tensor(going, device=self._device)
                        cache.batch_select_indices(keep)
                        mask, places = mask[keep], places[keep]
                        active, tokens = [active[k] for k in going], [tokens[k] for k in going]
                    ids = torch.tensor([[max(token, 0)] for token in tokens], device=self._device)
                    mask = torch.cat([mask, mask.new_ones(len(active), 1)], 1)
                    places = places[:, -1:] + 1
        return rows

    def _draw(self, logits: torch.Tensor, rows: Sequence[_Row], sampling: Sampling) -> list[int]:
        """The next token of each row; marks rows that have ended or cannot go on."""
        import torch

        scores = logits.float()
        totals = torch.logsumexp(scores, 1).cpu().numpy()
        table = scores.cpu().numpy()
        tokens = []
        for row, found, total in zip(rows, table, totals, strict=True):
            if row.ended or row.stuck:
                tokens.append(-1)
                continue
            token = _guided(row, found, sampling) if row.guide else _free(row, found, sampling)
            tokens.append(token)
            limit = _MOST_GUIDED_TOKENS if row.guide else sampling.max_new_tokens
            if token in self._ends:
                row.ended = True
            elif row.stuck or len(row.generated) >= limit:
                row.stuck = True
            else:
                row.generated.append(token)
                row.log_probability += float(found[token] - total)
        return tokens

    def _read(self, row: _Row) -> Answer:
        if row.stuck:
            return Answer(failure=Failure.DEAD_END if row.guide else Failure.TRUNCATED)
        text = row.guide.text if row.guide else self._tokenizer.decode(row.generated, skip_special_tokens=True)
        found = read_completion(text.strip(), "stop")
        fluency = row.log_probability / max(len(row.generated), 1)
        return Answer(found.text, found.failure, found.detail, fluency if math.isfinite(fluency) else None)


@contextlib.contextmanager
def _quick_thread_switches() -> Iterator[None]:
    """Threads hand the interpreter over after 0.2 ms, not 5: a decoding step is hundreds of operations of 0.1 ms each."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _return_memory() -> None:
    """Give freed pages back to the system, where the C library is glibc.

    Caches that grow by a token a step leave its heap full of holes: 0.3 to 0.6 GB a call that nothing else would use.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _guided(row: _Row, logits: np.ndarray, sampling: Sampling) -> int:
    """A token that the guide allows and accepts; the row is stuck where there is none."""
    assert row.guide is not None
    allowed: dict[int, Node | None] = row.guide.allowed()
    if allowed:
        ids = np.fromiter(allowed, np.int64, len(allowed))
        news = np.array([row.guide.wanted(node) for node in allowed.values()])
        weights = _weights(logits[ids] + _NEWS_BONUS * news, sampling.temperature)
        for _ in range(min(_REFUSALS, len(ids))):
            chosen = _choose(weights, sampling.top_p, row.rng)
            if chosen is None:
                break
            token = int(ids[chosen])
            if row.guide.accept(token, allowed[token]):
                return token
            weights[chosen] = 0.0
    row.stuck = True
    return -1


def _free(row: _Row, logits: np.ndarray, sampling: Sampling) -> int:
    """A token by temperature and nucleus sampling (Holtzman et al., ICLR 2020)."""
    chosen = _choose(_weights(logits, sampling.temperature), sampling.top_p, row.rng)
    assert chosen is not None
    return chosen


def _weights(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Unnormalised probabilities, float64; at temperature 0 so steep that only the best remains."""
    scaled = logits.astype(np.float64) / max(temperature, 1e-4)
    return np.exp(scaled - scaled.max())


def _choose(weights: np.ndarray, top_p: float, rng: random.Random) -> int | None:
    """An index drawn from the smallest set of the likeliest whose probability reaches ``top_p``; None where all are 0."""
    total = weights.sum()
    if total <= 0:
        return None
    order = np.argsort(-weights, kind="stable")
    cumulated = np.cumsum(weights[order])
    kept = cumulated[: int(np.searchsorted(cumulated, top_p * total)) + 1]
    place = int(np.searchsorted(kept, rng.random() * kept[-1], side="right"))
    return int(order[min(place, len(kept) - 1)])
