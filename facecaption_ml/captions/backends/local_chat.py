"""Chat models in this process, through transformers: full batches behind a common prompt prefix, a seed a row."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from facecaption_ml.captions.backends import checkpoints, nucleus
from facecaption_ml.captions.backends.chat import Answer, ChatRequest, Failure, Sampling
from facecaption_ml.captions.backends.completion import read_completion
from facecaption_ml.captions.guided.constraint import Constraint, Node, PunctuationTokens
from facecaption_ml.devices import resolve_device

if TYPE_CHECKING:
    import torch

    from facecaption_ml.captions.backends.options import ChatOptions
    from facecaption_ml.captions.backends.shared_prefix import SharedPrefix

_REFUSALS: Final = 24  # phrases that a constraint may turn down before the text counts as stuck
_MISSING_LABEL_BONUS: Final = 1.0  # logits for phrases that say a label; small models stop too early
_SHRINK: Final = 0.75  # share of unfinished rows at which the others leave the batch and waiting ones join it
_LEAST_SHARE: Final = 8  # rows that are worth a worker of their own
_MOST_GUIDED_TOKENS: Final = 160

Message = tuple[str, str]


@dataclass
class _Row:
    """One answer being written."""

    index: int
    ids: list[int]
    seed: int
    constraint: Constraint | None
    prompt_tokens: int = 0
    """Of the whole prompt, what it shares with other rows included."""
    rng: random.Random = field(init=False)
    generated: list[int] = field(default_factory=list)
    log_probability: float = 0.0
    ended: bool = False
    stuck: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    @property
    def unfinished(self) -> bool:
        return not (self.ended or self.stuck)


class LocalChatModel:
    """A chat model loaded with transformers; see :func:`checkpoints.load_chat_model` for the names it takes.

    Rows with equal messages before the last one share that prefix's keys and values (``shared_prefix``). They are divided
    among ``threads`` workers by prompt, and each worker keeps up to ``batch_size`` of its rows in a ``RunningBatch``.
    A row's draws depend on its seed alone, and rounding aside its probabilities on its own prompt alone. With one number of
    threads and one batch size the same requests in any order meet in the same batches, so that rounding is the same too.
    """

    supports_constraints = True
    batched = True

    def __init__(self, model: str, cache: Path, device: str = "cpu", batch_size: int = 64, threads: int = 1) -> None:
        self.model_id = checkpoints.model_id(model, device)
        self._name, self._cache, self._device, self._batch_size = model, cache, device, batch_size
        # On a CPU a worker is a thread with a batch of its own: the products of one decoding step are too small to share.
        self._workers = max(threads, 1) if device == "cpu" else 1
        self._loaded = False

    @classmethod
    def from_options(cls, options: ChatOptions, *, device: str, threads: int, cache: Path) -> LocalChatModel:
        """See ``options.open_chat_model``."""
        device = resolve_device(device, threads)
        return cls(options.model, cache, device, options.batch_size, threads or os.cpu_count() or 1)

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
        self._punctuation = PunctuationTokens(self._encode(",")[0], self._encode(".")[0], self._tokenizer.eos_token_id)
        from facecaption_ml.captions.backends import shared_prefix

        self._shares = shared_prefix.supports(self._model)
        if self._shares:
            shared_prefix.prepare(self._model)
        self._loaded = True

    def answer(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[Answer]:
        """An answer for each request, in their order. Raises ChatModelError where the model cannot be loaded."""
        if not requests:
            return []
        self._load()
        _return_memory()
        with _quick_thread_switches():
            shares = [
                self._pool.submit(self._generate, prefix, rows, sampling) for prefix, rows in self._divided(requests)
            ]
            rows = [row for share in shares for row in share.result()]
        _return_memory()
        return [self._read(row) for row in sorted(rows, key=lambda row: row.index)]

    def close(self) -> None:
        """Let go of the weights."""
        if self._loaded:
            self._pool.shutdown()
            del self._model
            self._loaded = False

    def _divided(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[SharedPrefix | None, list[_Row]]]:
        """What one worker does in one go: rows with one prefix."""
        import torch

        from facecaption_ml.captions.backends import shared_prefix

        by_prefix: dict[tuple[Message, ...], list[int]] = {}
        for index, request in enumerate(requests):
            by_prefix.setdefault(request.messages[:-1], []).append(index)
        for shared, indices in by_prefix.items():
            ids, rows = self._prompts(shared, requests, indices)
            prefix = None
            if ids:
                with torch.inference_mode():
                    prefix = shared_prefix.encode(self._model, torch.tensor([ids], device=self._device))
            for share in _dealt(rows, self._workers):
                yield prefix, share

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
            constraint = request.constraint(self._encode, self._punctuation) if request.constraint else None
            ids = self._tokenizer(text[len(head) :], add_special_tokens=False).input_ids
            rows.append(_Row(index, ids, request.seed, constraint))
        shared_ids = list(self._encode(head)) if head else []
        for row in rows:
            row.prompt_tokens = len(shared_ids) + len(row.ids)
        if not head:
            return [], rows
        # Last messages begin alike, too; a row keeps at least one token, whose logits give its first draw.
        alike = os.path.commonprefix([row.ids[:-1] for row in rows])  # noqa: RUF071 (of lists)
        for row in rows:
            row.ids = row.ids[len(alike) :]
        return [*shared_ids, *alike], rows

    def _rendered(self, messages: Sequence[Message], ask: bool) -> str:
        turns = [{"role": role, "content": content} for role, content in messages]
        return str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=ask, tokenize=False))

    def _generate(self, prefix: SharedPrefix | None, rows: list[_Row], sampling: Sampling) -> list[_Row]:
        """Write the rows' answers token by token; returns the rows."""
        import torch

        from facecaption_ml.captions.backends.running_batch import RunningBatch

        if self._device == "cpu":
            torch.set_num_threads(1)  # of this worker
        batch = RunningBatch(self._model, self._device, prefix)
        active: list[_Row] = []
        tokens: list[int] = []
        waiting = rows
        while active or waiting:
            room = self._batch_size - len(active)
            joining, waiting = waiting[:room], waiting[room:]
            if joining:
                tokens += self._draw(batch.join([row.ids for row in joining]), joining, sampling)
                active += joining
            places = _unfinished(active)
            # Not at every end: prompts are cheaper together, and each new shape costs the matrix kernels time and memory.
            while len(places) > _SHRINK * len(active):
                tokens = self._draw(batch.step([max(token, 0) for token in tokens]), active, sampling)
                places = _unfinished(active)
            batch.keep(places)
            active, tokens = [active[k] for k in places], [tokens[k] for k in places]
        return rows

    def _draw(self, logits: torch.Tensor, rows: Sequence[_Row], sampling: Sampling) -> list[int]:
        """The next token of each row; flags rows that have ended or are stuck."""
        import torch

        scores = logits.float()
        totals = torch.logsumexp(scores, 1).cpu().numpy()
        table = scores.cpu().numpy()
        tokens = []
        for row, row_logits, total in zip(rows, table, totals, strict=True):
            if not row.unfinished:
                tokens.append(-1)
                continue
            if row.constraint:
                token = _guided(row, row_logits, sampling)
            else:
                token = nucleus.drawn(row_logits, sampling.temperature, sampling.top_p, row.rng)
            tokens.append(token)
            limit = _MOST_GUIDED_TOKENS if row.constraint else sampling.max_new_tokens
            if token in self._ends:
                row.ended = True
            elif row.stuck or len(row.generated) >= limit:
                row.stuck = True
            else:
                row.generated.append(token)
                row.log_probability += float(row_logits[token] - total)
        return tokens

    def _read(self, row: _Row) -> Answer:
        """The row's answer with its tokens, counted as servers do: the mark of its end is one of them."""
        return replace(
            self._text_of(row),
            prompt_tokens=row.prompt_tokens,
            completion_tokens=len(row.generated) + row.ended,
        )

    def _text_of(self, row: _Row) -> Answer:
        if row.stuck:
            return Answer(failure=Failure.DEAD_END if row.constraint else Failure.TRUNCATED)
        text = (
            row.constraint.text if row.constraint else self._tokenizer.decode(row.generated, skip_special_tokens=True)
        )
        answer = read_completion(text, "stop")
        fluency = row.log_probability / max(len(row.generated), 1)
        return Answer(answer.text, answer.failure, answer.detail, fluency if math.isfinite(fluency) else None)


def _unfinished(rows: Sequence[_Row]) -> list[int]:
    """The places of the rows that are not at their end."""
    return [k for k, row in enumerate(rows) if row.unfinished]


def _dealt(rows: Sequence[_Row], workers: int) -> list[list[_Row]]:
    """Each worker's rows, whatever order they come in: equal prompts together, long ones, whose answers are long, first."""
    by_prompt: dict[tuple[int, ...], list[_Row]] = {}
    for row in sorted(rows, key=lambda row: (-len(row.ids), row.ids, row.seed, row.index)):
        by_prompt.setdefault(tuple(row.ids), []).append(row)
    shares = min(workers, math.ceil(len(rows) / _LEAST_SHARE), len(by_prompt))
    prompts = list(by_prompt.values())
    return [[row for prompt in prompts[k::shares] for row in prompt] for k in range(shares)]


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
    """A token that the constraint allows and accepts; the row is stuck where there is none."""
    assert row.constraint is not None
    allowed: dict[int, Node | None] = row.constraint.allowed()
    if allowed:
        ids = np.fromiter(allowed, np.int64, len(allowed))
        missing = np.array([row.constraint.adds_missing_label(node) for node in allowed.values()])
        weights = nucleus.weights_of(logits[ids] + _MISSING_LABEL_BONUS * missing, sampling.temperature)
        for _ in range(min(_REFUSALS, len(ids))):
            if not weights.any():
                break
            chosen = nucleus.among(weights, sampling.top_p, row.rng)
            token = int(ids[chosen])
            if row.constraint.accept(token, allowed[token]):
                return token
            weights[chosen] = 0.0
    row.stuck = True
    return -1
