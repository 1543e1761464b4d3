"""LLM captions: each template caption rewritten by a chat model, best of n, or kept with the reason (paper §3.3, spec §1)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl

from facecaption_ml.captions.backends.chat import Answer, ChatModel, ChatModelError, ChatRequest, Sampling
from facecaption_ml.captions.backends.options import open_chat_model
from facecaption_ml.captions.backends.registry import NONE, VLLM
from facecaption_ml.captions.guided.calibration import calibration_of
from facecaption_ml.captions.guided.constraint import VERSION as CONSTRAINT_VERSION
from facecaption_ml.captions.guided.constraint import Constraint
from facecaption_ml.captions.rewrite.answer_cache import AnswerCache, answer_key
from facecaption_ml.captions.rewrite.judgement import Judgement, judge_rewrite
from facecaption_ml.captions.rewrite.options import RewritingOptions
from facecaption_ml.captions.rewrite.prompt import RewritingPrompt
from facecaption_ml.captions.rewrite.usage import Usage
from facecaption_ml.schemas import SCHEMAS, conform
from facecaption_ml.taxonomy import Gender

LLM: Final = "llm"
TEMPLATE: Final = "template"
_log = logging.getLogger("facecaption")

_BATCHES_PER_CHUNK: Final = 8  # of the model, between two saves of the answers
_TURNS_PER_CHUNK: Final = 16  # of the requests in flight at an endpoint


@dataclass
class _Face:
    """One template caption on its way; several faces may share it."""

    template: str
    labels: tuple[str, ...]
    gender: Gender | None
    attempts: int = 0
    answered: int = 0  # attempts that the model itself answered: a lost answer is asked for again, with the same seed
    best: Judgement | None = None  # good
    closest: Judgement | None = None  # not good, fewest attributes wrong
    last: Judgement | None = None  # of the model itself

    def judge(self, answer: Answer, least_fluency: float | None) -> None:
        self.attempts += answer.asked
        judgement = judge_rewrite(answer, self.labels, self.gender, template=self.template, least_fluency=least_fluency)
        if not (answer.failure and answer.failure.of_server):
            self.answered += 1
            self.last = judgement
        if judgement.reason is None:
            self.best = judgement
        else:
            closest = self.closest or judgement
            self.closest = min(closest, judgement, key=lambda bad: (not bad.text, bad.distance))

    @property
    def settled(self) -> bool:
        return self.best is not None


@dataclass(frozen=True)
class _Question:
    """One attempt for a face; ``key``: under which its answer is kept."""

    key: str
    request: ChatRequest


@dataclass(frozen=True)
class Rewriter:
    """Rewrites template captions with a chat model.

    Up to ``attempts`` seeds a caption: the first rewrite wins that is faithful and well formed; after the last attempt the
    template caption stays, with the reason. Seeds come from ``seed``, the prompt's version and the template caption, so the
    same template caption gets the same rewrite. A second try is told which attributes the first left out and added. An
    answer that a server lost is asked for again with its own seed, in the next round. ``guided``: guided decoding, where the
    backend can. ``model_name``: the model's name in tables and keys, its own id unless given.

    ``chunk``: requests handed to the model at once; answers are saved to the cache after each chunk. Only what has no answer
    yet is asked, but of a model whose answers depend on their batch (``ChatModel.batched``): its chunks are cut from all
    requests of a round, cached or not, and asked as a whole, so that a run that was killed and one that was not put the same
    rows into the same batches, given the same number of threads.
    """

    model: ChatModel
    prompt: RewritingPrompt
    sampling: Sampling = field(default_factory=Sampling)
    attempts: int = 4
    seed: int = 0
    guided: bool = False
    least_fluency: float | None = None
    chunk: int = 256
    model_name: str = ""

    @property
    def model_id(self) -> str:
        """The model's name in tables and keys."""
        return self.model_name or self.model.model_id

    def rewrite(
        self,
        templates: pl.DataFrame,
        cache: AnswerCache | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        usage: Usage | None = None,
    ) -> pl.DataFrame:
        """An ``llm_captions`` table for a ``template_captions`` table, row by row in its order.

        ``on_progress(done, total)`` counts different template captions and is called after each chunk. ``usage``: is added to.
        Raises ChatModelError where the model cannot be asked (any further), SchemaError where a column is missing.
        """
        rows = conform(templates, "template_captions")
        faces: dict[str, _Face] = {}
        for _, template, labels, gender in rows.iter_rows():
            faces.setdefault(template, _Face(template, tuple(labels or ()), gender))
        ordered = sorted(faces.values(), key=lambda face: (len(face.template), face.template))
        usage = Usage() if usage is None else usage
        for place, attempts in enumerate(rounds := self._rounds()):
            asked = [(face, attempt) for face in ordered if not face.settled for attempt in attempts or [face.answered]]
            for start in range(0, len(asked), self.chunk):
                self._ask(asked[start : start + self.chunk], cache, usage)
                if on_progress:
                    last_round = place == len(rounds) - 1
                    to_come = asked[start + self.chunk :] if last_round else ((face, 0) for face in ordered)
                    unsettled = {face.template for face, _ in to_come if not face.settled}
                    on_progress(len(faces) - len(unsettled), len(faces))
        return self._table(rows, faces)

    def _rounds(self) -> list[Sequence[int]]:
        """The attempts of each round; none named: the first that has no answer yet.

        Under guidance one for all, then, for those that need more, the rest at once: few small batches cost more than some
        waste, and there is nothing to tell a model that could not leave anything out. Elsewhere one by one: each answer is
        paid for, and tells the next attempt what was wrong.
        """
        return [range(1), range(1, self.attempts)] if self.guided else [()] * self.attempts

    def _ask(self, asked: Sequence[tuple[_Face, int]], cache: AnswerCache | None, usage: Usage) -> None:
        """Answers for faces and attempts, judged; those in the cache are not asked for again."""
        questions = [self._question(face, attempt) for face, attempt in asked]
        kept = [None if cache is None else cache.get(question.key) for question in questions]
        lacking = [place for place, answer in enumerate(kept) if answer is None]
        if lacking and getattr(self.model, "batched", False):
            lacking = list(range(len(asked)))
        given = dict(zip(lacking, self._answers([questions[place] for place in lacking], cache, usage), strict=True))
        for place, (face, _) in enumerate(asked):
            before = kept[place]
            answer = before or given[place]
            if before is not None:
                usage.add_kept(before)
            if not face.settled:
                face.judge(answer, self.least_fluency)

    def _answers(self, questions: Sequence[_Question], cache: AnswerCache | None, usage: Usage) -> list[Answer]:
        """The model's answers, kept in the cache as they come, those before an error too."""
        if not questions:
            return []
        try:
            answers = self.model.answer([question.request for question in questions], self.sampling)
        except ChatModelError as error:
            self._keep(questions, error.answers or [None] * len(questions), cache, usage)
            raise
        self._keep(questions, answers, cache, usage)
        return answers

    @staticmethod
    def _keep(
        questions: Sequence[_Question], answers: Sequence[Answer | None], cache: AnswerCache | None, usage: Usage
    ) -> None:
        for question, answer in zip(questions, answers, strict=True):
            if answer is not None:
                usage.add(answer)
                if cache is not None and cache.get(question.key) is None:
                    cache.put(question.key, answer)
        if cache is not None:
            cache.save()

    def _question(self, face: _Face, attempt: int) -> _Question:
        last = face.last
        again = ""
        if last is not None and attempt > 0 and not self.guided and last.says_otherwise:
            again = self.prompt.retry(last.text, last.missing, (*last.invented, *last.beyond))
        messages = self.prompt.messages(face.template, self.guided, again)
        seed = self._seed(face.template, attempt)
        constraint = CONSTRAINT_VERSION if self.guided else ""
        key = answer_key(self.model_id, self.prompt.version, self.sampling, constraint, face.template, seed, again)
        return _Question(key, ChatRequest(messages, seed, self._constraint(face)))

    def _constraint(self, face: _Face) -> Callable[..., Constraint] | None:
        if not self.guided:
            return None
        return partial(Constraint, face.template, face.labels, face.gender, self.prompt.vocabulary)

    def _seed(self, template: str, attempt: int) -> int:
        text = f"{self.seed}\n{self.prompt.version}\n{attempt}\n{template}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1

    def _table(self, rows: pl.DataFrame, faces: dict[str, _Face]) -> pl.DataFrame:
        written = []
        for face_id, template in rows.select("face_id", "template_caption").iter_rows():
            face = faces[template]
            last = face.best or face.closest or Judgement(reason="not asked")
            text, source = (face.best.text, LLM) if face.best else (template, TEMPLATE)
            what = (face.attempts, last.missing, last.invented, last.reason, self.model_id, self.prompt.version)
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
        least_fluency=_floor(options.least_fluency, model.model_id) if guided else None,
        chunk=_chunk(options, getattr(model, "batched", False)),
        model_name=options.model_name,
    )


def open_demonstrator(
    options: RewritingOptions, *, device: str, threads: int, cache: Path, seed: int
) -> Rewriter | None:
    """The rewriter of a demonstration, in this process and guided; None where none is wanted. Raises as ``open_rewriter``."""
    if options.backend != NONE or not options.demonstration:
        return None
    shown = options.model_copy(update={"backend": "local", "guided": True})
    return open_rewriter(shown, device=device, threads=threads, cache=cache, seed=seed)


def _floor(given: float | None, model_id: str) -> float | None:
    """The least fluency that is asked of a model's texts: what was given, or what was calibrated for this very model."""
    if given is not None:
        return given
    calibration = calibration_of(model_id)
    if calibration is None:
        _log.info("no floor of fluency has been calibrated for %s: all its faithful texts are taken", model_id)
        return None
    return calibration.least_fluency


def _chunk(options: RewritingOptions, batched: bool) -> int:
    """Requests between two saves of the answers: whole batches, or what a run that is killed may lose of paid answers."""
    if options.backend == VLLM:
        return options.vllm.requests_at_once  # the engine fills its batches itself, as long as requests wait
    chunk = options.batch_size * _BATCHES_PER_CHUNK
    return chunk if batched else min(chunk, options.concurrency * _TURNS_PER_CHUNK)


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
