"""The prompt of a rewrite, read with the vocabulary of guided decoding from ``rewriting.toml``."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from facecaption_ml.captions.faithful.faithfulness import find_attributes
from facecaption_ml.captions.guided.vocabulary import Vocabulary
from facecaption_ml.errors import FaceCaptionError

BUNDLED: Final = "bundled"


class PromptError(FaceCaptionError):
    """The prompt file is unusable; the message names the file and the entry."""

    option = "prompt"


@dataclass(frozen=True)
class Example:
    """A template caption, a good rewrite of it, and the attributes that both assert."""

    template: str
    rewrite: str
    attributes: frozenset[str]


class RewritingPrompt:
    """How a rewrite is asked for. ``version``: the file's version and the first digits of its SHA-256."""

    def __init__(self, data: Mapping[str, Any], digest: str) -> None:
        self.version = f"{data['version']}-{digest[:8]}"
        self.system: str = data["system"]
        self._shown = int(data["examples_shown"])
        self.examples = [
            Example(entry["template"], entry["rewrite"], frozenset(find_attributes(entry["template"])[0]))
            for entry in data["examples"]
        ]
        self.vocabulary = Vocabulary(data["vocabulary"])

    @classmethod
    def load(cls, path: str = BUNDLED) -> RewritingPrompt:
        """The bundled prompt, or that of a file. Raises PromptError naming the file and what is wrong with it."""
        if path == BUNDLED:
            return _bundled()
        try:
            return _read(Path(path).expanduser())
        except OSError as error:
            raise PromptError(f"{path}: {error.strerror or error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError, TypeError) as error:
            raise PromptError(f"{path}: {error}") from None
        except KeyError as error:
            raise PromptError(f"{path}: no entry {error.args[0]!r}") from None

    def messages(self, template: str, guided: bool = False) -> tuple[tuple[str, str], ...]:
        """System message, examples and the caption to rewrite, as (role, content).

        The examples are those that share most attributes with the caption (Jaccard index; earlier ones first on ties); for
        guided decoding always the first ones, whose share of the prompt is then computed once for all rows.
        """
        shown = self.examples[: self._shown]
        if not guided:
            asserted = set(find_attributes(template)[0])

            def similarity(example: Example) -> float:
                return len(asserted & example.attributes) / max(len(asserted | example.attributes), 1)

            # The closest one last, next to the question.
            shown = sorted(self.examples, key=similarity, reverse=True)[: self._shown][::-1]
        turns: list[tuple[str, str]] = [("system", self.system)]
        for example in shown:
            turns += [("user", example.template), ("assistant", example.rewrite)]
        return (*turns, ("user", template))


def _read(path: Path) -> RewritingPrompt:
    data = path.read_bytes()
    return RewritingPrompt(tomllib.loads(data.decode()), hashlib.sha256(data).hexdigest())


@cache
def _bundled() -> RewritingPrompt:
    return _read(Path(__file__).with_name("rewriting.toml"))
