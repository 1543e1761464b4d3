"""The prompt of a rewrite, read with the vocabulary of guided decoding from ``rewriting.toml``."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from facecaption_ml.captions.faithful.faithfulness import find_attributes
from facecaption_ml.captions.guided.vocabulary import Vocabulary
from facecaption_ml.errors import FaceCaptionError

BUNDLED: Final = "bundled"
Messages = tuple[tuple[str, str], ...]
"""(role, content) pairs."""
_OTHERS: Final = 6  # examples like the caption, beside the closest, that the others of its prompt are drawn from


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
        self.examples = _examples(data["examples"])
        self._guided_examples = _examples(data.get("guided_examples", ())) or self.examples[: self._shown]
        retry = data.get("retry", {})
        self._tried, self._left_out, self._added, self._again = (
            str(retry.get(name, "")) for name in ("tried", "left_out", "added", "again")
        )
        self._words: Mapping[str, str] = retry.get("words", {})
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

    def messages(self, template: str, guided: bool = False, again: str = "") -> Messages:
        """System message, examples and the caption to rewrite, as (role, content).

        The example that shares most attributes with the caption (Jaccard index) stands next to it; those before it are drawn
        from the next ``_OTHERS`` by a hash of the caption, so that none stands in every other prompt. Guided decoding has
        examples of its own, whose share of the prompt is then computed once for all rows. ``again``: what ``retry`` says; it
        ends the system message, since many chat templates take no second user turn in a row.
        """
        shown = self._guided_examples if guided else self._like(template)
        turns: list[tuple[str, str]] = [("system", f"{self.system}\n\n{again}" if again else self.system)]
        for example in shown:
            turns += [("user", example.template), ("assistant", example.rewrite)]
        return (*turns, ("user", template))

    def retry(self, answer: str, missing: Sequence[str], invented: Sequence[str]) -> str:
        """What a second try is told of an answer that was not faithful: which attributes it lost and which it added.

        Empty where there is nothing to say, or the prompt file has no words for it.
        """
        told = ((self._left_out, missing), (self._added, invented))
        said = [words.replace("{}", ", ".join(map(self._in_words, names))) for words, names in told if words and names]
        return " ".join([self._tried.replace("{}", answer), *said, self._again]).strip() if said else ""

    def _in_words(self, attribute: str) -> str:
        return self._words.get(attribute, attribute.replace("_", " ").lower())

    def _like(self, template: str) -> list[Example]:
        """The examples for a caption, the closest one last."""
        asserted = set(find_attributes(template)[0])

        def similarity(example: Example) -> float:
            return len(asserted & example.attributes) / max(len(asserted | example.attributes), 1)

        def drawn(example: Example) -> bytes:
            return hashlib.blake2b(f"{template}\n{example.template}".encode(), digest_size=8).digest()

        closest, *others = sorted(self.examples, key=similarity, reverse=True)[: _OTHERS + 1]
        return [*sorted(others, key=drawn)[: self._shown - 1], closest] if self._shown else []


def _examples(entries: Iterable[Mapping[str, str]]) -> list[Example]:
    return [
        Example(entry["template"], entry["rewrite"], frozenset(find_attributes(entry["template"])[0]))
        for entry in entries
    ]


def _read(path: Path) -> RewritingPrompt:
    data = path.read_bytes()
    return RewritingPrompt(tomllib.loads(data.decode()), hashlib.sha256(data).hexdigest())


@cache
def _bundled() -> RewritingPrompt:
    return _read(Path(__file__).with_name("rewriting.toml"))
