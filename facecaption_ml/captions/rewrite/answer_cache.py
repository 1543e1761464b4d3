"""Answers that a chat model has given, kept in the store: the same question is asked once, whatever happens to a run."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import asdict, dataclass, field
from typing import Final

import polars as pl

from facecaption_ml.captions.backends.chat import Answer, Failure, Sampling
from facecaption_ml.storage.store import Store

FOLDER: Final = "llm_answers"
_SCHEMA: Final = {
    "key": pl.String,
    "text": pl.String,
    "failure": pl.String,
    "fluency": pl.Float64,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
}


def answer_key(
    model_id: str,
    prompt_version: str,
    sampling: Sampling,
    constraint: str,
    template: str,
    seed: int,
    again: str = "",
) -> str:
    """What decides an answer, as 32 hex digits.

    ``constraint``: the version of guided decoding, "" for free decoding. ``again``: what a second try is told.
    """
    parts = (model_id, prompt_version, repr(sorted(asdict(sampling).items())), constraint, template, str(seed), again)
    return hashlib.blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()


def delete_answers(store: Store, shard: str, kept: str | None = None) -> None:
    """Delete every model's answers kept for a shard, but for the object ``kept``."""
    for key in store.keys(f"{FOLDER}/"):
        if key.endswith(f"/{shard}.parquet") and key != kept:
            store.delete(key)


def slug(model_id: str) -> str:
    """A model's id as a part of an object's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model_id)


@dataclass
class AnswerCache:
    """The answers kept under one name (of a shard, say), read at once and written whole."""

    store: Store
    name: str
    _answers: dict[str, Answer] = field(default_factory=dict)
    _dirty: bool = False
    _used: set[str] = field(default_factory=set)  # asked for or put since it was opened

    @property
    def key(self) -> str:
        """The object in the store."""
        return f"{FOLDER}/{self.name}.parquet"

    def __post_init__(self) -> None:
        if self.store.exists(self.key):
            frame = pl.read_parquet(io.BytesIO(self.store.read_bytes(self.key)))
            # Written by an earlier version, it may lack the tokens.
            absent = [pl.lit(None, dtype).alias(name) for name, dtype in _SCHEMA.items() if name not in frame.columns]
            for key, text, failure, fluency, *tokens in frame.with_columns(absent).select(list(_SCHEMA)).iter_rows():
                asked, written = (number or 0 for number in tokens)
                self._answers[key] = Answer(
                    text,
                    Failure(failure) if failure else None,
                    fluency=fluency,
                    prompt_tokens=asked,
                    completion_tokens=written,
                )

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer kept under a key."""
        self._used.add(key)
        return self._answers.get(key)

    def put(self, key: str, answer: Answer) -> None:
        """Keep an answer, unless asking again may bring another."""
        if answer.failure is None or not answer.failure.of_server:
            self._answers[key] = answer
            self._used.add(key)
            self._dirty = True

    def keep_only_used(self) -> int:
        """Forget the answers that nobody has asked for since the cache was opened, and save; how many there were.

        For a shard from which something was taken out: answers are kept by a hash of their question, so those of a face that
        is gone can only be told by nobody asking for them any more.
        """
        others = set(self._answers) - self._used
        self._answers = {key: answer for key, answer in self._answers.items() if key in self._used}
        self._dirty = self._dirty or bool(others)
        self.save()
        return len(others)

    def save(self) -> None:
        """Write what is new."""
        if not self._dirty:
            return
        rows = sorted(
            (
                key,
                answer.text,
                str(answer.failure) if answer.failure else None,
                answer.fluency,
                answer.prompt_tokens,
                answer.completion_tokens,
            )
            for key, answer in self._answers.items()
        )
        buffer = io.BytesIO()
        pl.DataFrame(rows, schema=_SCHEMA, orient="row").write_parquet(buffer)
        self.store.write_bytes(self.key, buffer.getvalue())
        self._dirty = False
