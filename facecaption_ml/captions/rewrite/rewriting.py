"""LLM captions: each template caption rewritten by a chat model, best of n, or kept with the reason (paper §3.3, spec §1)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl

from facecaption_ml.captions.backends.chat import Answer, ChatModel, ChatRequest, Sampling
from facecaption_ml.captions.backends.options import open_chat_model
from facecaption_ml.captions.backends.registry import NONE
from facecaption_ml.captions.guided.constraint import VERSION as CONSTRAINT_VERSION
from facecaption_ml.captions.guided.constraint import Constraint
from facecaption_ml.captions.rewrite.answer_cache import AnswerCache, answer_key
from facecaption_ml.captions.rewrite.judgement import Judgement, judge_rewrite
from facecaption_ml.captions.rewrite.options import RewritingOptions
from facecaption_ml.captions.rewrite.prompt import RewritingPrompt
from facecaption_ml.schemas import SCHEMAS, conform
from facecaption_ml.taxonomy import Gender

LLM: Final = "llm"
TEMPLATE: Final = "template"

_BATCHES_PER_CHUNK: Final = 8  # of the model, between two saves of the answers


@dataclass
class _Face:
    """One template caption on its way; several faces may share it."""

    template: str
    labels: tuple[str, ...]
    gender: Gender | None
    attempts: int = 0
    best: Judgement | None = None  # good
    closest: Judgement | None = None  # not good, fewest attributes wrong

    def judge(self, answer: Answer, least_fluency: float | None) -> None:
        self.attempts += 1
        judgement = judge_rewrite(answer, self.labels, self.gender, template=self.template, least_fluency=least_fluency)
        if judgement.reason is None:
            self.best = min(self.best or judgement, judgement, key=lambda good: good.repetition)
        else:
            closest = self.closest or judgement
            self.closest = min(closest, judgement, key=lambda bad: (not bad.text, bad.distance))

    @property
    def settled(self) -> bool:
        return self.best is not None and self.best.repetition == 0


@dataclass(frozen=True)
class Rewriter:
    """Rewrites template captions with a chat model.

    Up to ``attempts`` seeds a caption: the first rewrite wins that is faithful, well formed and repeats no three words; after
    the last attempt the least repetitive of the good ones, else the template caption with the reason. Seeds come from
    ``seed``, the prompt's version and the template caption, so the same template caption gets the same rewrite.
    ``guided``: guided decoding, where the backend can. ``chunk``: requests handed to the model at once; answers are saved to
    the cache after each chunk, and chunks are cut from all requests of a round, cached or not, so that a run that was killed
    and one that was not put the same rows into the same batches, given the same number of threads.
    """

    model: ChatModel
    prompt: RewritingPrompt
    sampling: Sampling = field(default_factory=Sampling)
    attempts: int = 4
    seed: int = 0
    guided: bool = False
    least_fluency: float | None = None
    chunk: int = 256

    def rewrite(
        self,
        templates: pl.DataFrame,
        cache: AnswerCache | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> pl.DataFrame:
        """An ``llm_captions`` table for a ``template_captions`` table, row by row in its order.

        ``on_progress(done, total)`` counts different template captions and is called after each chunk.
        Raises ChatModelError where the model cannot be asked at all, SchemaError where a column is missing.
        """
        rows = conform(templates, "template_captions")
        faces: dict[str, _Face] = {}
        for _, template, labels, gender in rows.iter_rows():
            faces.setdefault(template, _Face(template, tuple(labels or ()), gender))
        ordered = sorted(faces.values(), key=lambda face: (len(face.template), face.template))
        # One attempt for all; then, for those that need more, the rest at once: few small batches cost more than some waste.
        for attempts in (range(1), range(1, self.attempts)):
            asked = [(face, attempt) for face in ordered if not face.settled for attempt in attempts]
            last_round = attempts.stop == self.attempts
            for start in range(0, len(asked), self.chunk):
                self._ask(asked[start : start + self.chunk], cache)
                if on_progress:
                    to_come = asked[start + self.chunk :] if last_round else ((face, 0) for face in ordered)
                    unsettled = {face.template for face, _ in to_come if not face.settled}
                    on_progress(len(faces) - len(unsettled), len(faces))
        return self._table(rows, faces)

    def _ask(self, asked: Sequence[tuple[_Face, int]], cache: AnswerCache | None) -> None:
        """Answers for faces and attempts, from the cache where all of them are there."""
        seeds = [self._seed(face.template, attempt) for face, attempt in asked]
        keys = [self._key(face, seed) for (face, _), seed in zip(asked, seeds, strict=True)]
        kept = [None if cache is None else cache.get(key) for key in keys]
        answers: Iterable[Answer | None] = kept
        if None in kept:
            requests = [
                ChatRequest(self.prompt.messages(face.template, self.guided), seed, self._constraint(face))
                for (face, _), seed in zip(asked, seeds, strict=True)
            ]
            answers = self.model.answer(requests, self.sampling)
        for (face, _), key, before, answer in zip(asked, keys, kept, answers, strict=True):
            current = before or answer
            assert current is not None
            if cache is not None and before is None:
                cache.put(key, current)
            if not face.settled:
                face.judge(current, self.least_fluency)
        if cache is not None:
            cache.save()

    def _constraint(self, face: _Face) -> Callable[..., Constraint] | None:
        if not self.guided:
            return None
        return partial(Constraint, face.template, face.labels, face.gender, self.prompt.vocabulary)

    def _seed(self, template: str, attempt: int) -> int:
        text = f"{self.seed}\n{self.prompt.version}\n{attempt}\n{template}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1

    def _key(self, face: _Face, seed: int) -> str:
        constraint = CONSTRAINT_VERSION if self.guided else ""
        return answer_key(self.model.model_id, self.prompt.version, self.sampling, constraint, face.template, seed)

    def _table(self, rows: pl.DataFrame, faces: dict[str, _Face]) -> pl.DataFrame:
        written = []
        for face_id, template in rows.select("face_id", "template_caption").iter_rows():
            face = faces[template]
            last = face.best or face.closest or Judgement(reason="not asked")
            text, source = (face.best.text, LLM) if face.best else (template, TEMPLATE)
            what = (face.attempts, last.missing, last.invented, last.reason, self.model.model_id, self.prompt.version)
            written.append((face_id, text, source, *what))
        return conform(pl.DataFrame(written, schema=dict(SCHEMAS["llm_captions"]), orient="row"), "llm_captions")


def open_rewriter(options: RewritingOptions, *, device: str, threads: int, cache: Path, seed: int) -> Rewriter | None:
    """The rewriter that the options describe; None for the backend ``none``.

    ``device``, ``threads`` and ``cache``: see ``options.open_chat_model``. Raises ChatModelError or PromptError, whose
    ``option`` is the field at fault.
    """
    if options.backend == NONE:
        return None
    model = open_chat_model(options, device=device, threads=threads, cache=cache)
    guided = options.guided and model.supports_constraints
    return Rewriter(
        model,
        RewritingPrompt.load(options.prompt),
        options.sampling,
        attempts=options.attempts,
        seed=seed,
        guided=guided,
        least_fluency=options.least_fluency if guided else None,
        chunk=options.batch_size * _BATCHES_PER_CHUNK,
    )


def unwritten(templates: pl.DataFrame, reason: str) -> pl.DataFrame:
    """An ``llm_captions`` table that keeps every template caption, for ``reason``."""
    rows = conform(templates, "template_captions")
    none = pl.lit([], dtype=pl.List(pl.String))
    kept = rows.select(
        "face_id",
        caption="template_caption",
        caption_source=pl.lit(TEMPLATE),
        attempts=pl.lit(0, pl.Int16),
        missing=none,
        invented=none,
        reason=pl.lit(reason),
        model=pl.lit("none"),
        prompt_version=pl.lit("none"),
    )
    return conform(kept, "llm_captions")
