"""How captions are rewritten: the chat model's options and the rewriter's own."""

from __future__ import annotations

from pydantic import Field

from facecaption_ml.captions.backends.options import ChatOptions
from facecaption_ml.captions.backends.registry import GUIDABLE, NONE
from facecaption_ml.captions.rewrite.usage import Prices


class RewritingOptions(ChatOptions):
    """How a chat model rewrites template captions. ``open_rewriter`` makes a Rewriter of it."""

    prompt: str = Field("bundled", description="bundled or a file like rewriting.toml")
    guided: bool = Field(False, description="guided decoding, which small models need; backend 'local' only")
    attempts: int = Field(4, ge=1, description="seeds tried for a caption before its template caption is kept")
    least_fluency: float | None = Field(
        None,
        le=0,
        description="guided decoding: lowest mean log-probability of a token of a caption; not set: the floor that was "
        "calibrated for the model, if one was",
    )
    demonstration: int = Field(
        0,
        ge=0,
        description="with the backend none: so many captions of the first shard are rewritten by the model under guided "
        "decoding and shown by rewriting_demonstration; the data set keeps the templates",
    )
    price_prompt: float = Field(
        0.0,
        ge=0,
        description="price of a million prompt tokens, in your currency; sums the cost of captions in the metadata",
    )
    price_completion: float = Field(0.0, ge=0, description="price of a million completion tokens, thinking included")
    acceptance_floor: float = Field(
        0.5, ge=0, le=1, description="a lower share of LLM captions in a shard is a warning"
    )

    @property
    def idle(self) -> frozenset[str]:
        """The fields that change no caption under the others: nearly all of them where nobody rewrites."""
        shown = {"demonstration"}  # no caption is taken from it
        if self.backend == NONE:
            return frozenset(type(self).model_fields) - {"backend"}
        if self.backend not in GUIDABLE:
            return frozenset({"guided", "least_fluency", *shown})
        return frozenset(shown if self.guided else {"least_fluency", *shown})

    @property
    def prices(self) -> Prices:
        """What tokens cost."""
        return Prices(self.price_prompt, self.price_completion)
