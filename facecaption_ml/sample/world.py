"""A small web of drawn pictures: which URL shows which scene in which form, and how its server behaves.

Nothing is drawn here but what :meth:`SampleWorld.body_of` is asked for. URLs carry no port: a client is told to connect to
the loopback server for every host of ``*.sample.test`` (a name that RFC 6761 reserves for testing, so that it never leads
anywhere else), and equal seeds give equal URLs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeVar

import numpy as np
import polars as pl

from facecaption_ml.sample.alt_text import alt_text
from facecaption_ml.sample.attribute_sampling import sample_labels
from facecaption_ml.sample.bodies import VARIANT_SHARES, encode_scene, oversized_png
from facecaption_ml.sample.scenes import SceneFace, ScenePlan, draw_scene, plan_scene, scene_faces

_WORLD_STREAM: Final = 0x3E8
_Kind = TypeVar("_Kind", bound=str)
HOST_PATTERN: Final = "*.sample.test"
_HOSTS: Final = (
    *(f"photos-{i}.sample.test" for i in range(1, 6)), *(f"cdn-{i}.sample.test" for i in range(1, 4)),
    "shop.sample.test", "news.sample.test", "blog.sample.test",
)  # fmt: skip
HANGING_HOSTS: Final = ("asleep-1.sample.test", "asleep-2.sample.test")
FORBIDDEN_HOST: Final = "private.sample.test"
UNKNOWN_HOST: Final = "gone.sample.invalid"  # RFC 6761: never resolves


class Behaviour(StrEnum):
    """What a URL does when it is asked for."""

    ok = "ok"
    slow = "slow"  # the picture, after a pause
    redirect = "redirect"  # one to three 301 or 302, then the picture
    unavailable_once = "unavailable_once"  # 503 the first time, then the picture
    image_as_html = "image_as_html"  # the picture, called text/html
    not_found = "not_found"  # 404
    removed = "removed"  # 410
    server_error = "server_error"  # 500, always
    hangs = "hangs"  # the host accepts and never answers
    unknown_host = "unknown_host"
    redirect_loop = "redirect_loop"
    truncated = "truncated"  # Content-Length is more than what comes
    html = "html"  # a page where a picture was
    html_as_image = "html_as_image"  # the same, called image/jpeg
    opted_out = "opted_out"  # X-Robots-Tag: noai
    robots_forbidden = "robots_forbidden"  # the host's robots.txt forbids everything
    too_large = "too_large"  # a body of hundreds of megabytes
    too_many_pixels = "too_many_pixels"  # a small file of 30,000 × 30,000 pixels


USABLE: Final = frozenset(
    {Behaviour.ok, Behaviour.slow, Behaviour.redirect, Behaviour.unavailable_once, Behaviour.image_as_html}
)
"""Behaviours that end in a picture."""

_SHARES: Final[Mapping[Behaviour, float]] = {
    Behaviour.slow: 0.01,
    Behaviour.redirect: 0.035,
    Behaviour.unavailable_once: 0.015,
    Behaviour.image_as_html: 0.01,
    Behaviour.not_found: 0.03,
    Behaviour.removed: 0.008,
    Behaviour.server_error: 0.012,
    Behaviour.hangs: 0.01,
    Behaviour.unknown_host: 0.007,
    Behaviour.redirect_loop: 0.003,
    Behaviour.truncated: 0.015,
    Behaviour.html: 0.018,
    Behaviour.html_as_image: 0.01,
    Behaviour.opted_out: 0.007,
    Behaviour.robots_forbidden: 0.01,
    Behaviour.too_large: 0.002,
    Behaviour.too_many_pixels: 0.002,
}
_SAME_URL_SHARE: Final = 0.007  # rows that repeat an earlier URL
_SAME_BYTES_SHARE: Final = 0.007  # other URLs that send an earlier one's bytes
_NSFW_SHARES: Final = {"NSFW": 0.008, "UNSURE": 0.012}  # the pictures are as harmless as the others
_SOME_OF_EACH_FROM: Final = 200  # rows; a smaller world may lack the rarest kinds


@dataclass(frozen=True)
class Page:
    """One row of the world: a URL, what it does and what it shows.

    ``width`` and ``height`` are the picture's as the manifest gives them, ``variant`` the form of the file (see
    :data:`~facecaption_ml.sample.bodies.VARIANT_SHARES`), ``hops`` the number of redirects before the picture.
    """

    url: str
    behaviour: Behaviour
    scene: int
    variant: str
    width: int
    height: int
    text: str
    nsfw: str
    hops: int = 0

    @property
    def host(self) -> str:
        return self.url.split("/", 3)[2]

    @property
    def path(self) -> str:
        return "/" + self.url.split("/", 3)[3]


class SampleWorld:
    """``scenes`` rows of a source manifest and the pictures behind them, all of it following from ``seed``.

    About 86 % of the rows end in a picture. Raises ValueError for fewer than one scene.
    """

    def __init__(self, seed: int = 0, scenes: int = 600) -> None:
        if scenes < 1:
            raise ValueError(f"scenes is {scenes}; a world has at least one")
        self.seed, self.scenes = seed, scenes
        self.pages = _make_pages(seed, scenes)
        self._by_place = {(page.host, page.path): page for page in self.pages}

    def manifest(self) -> pl.DataFrame:
        """The rows as LAION has them: URL, TEXT, WIDTH, HEIGHT, NSFW."""
        return pl.DataFrame(
            {
                "URL": [page.url for page in self.pages],
                "TEXT": [page.text for page in self.pages],
                "WIDTH": [page.width for page in self.pages],
                "HEIGHT": [page.height for page in self.pages],
                "NSFW": [page.nsfw for page in self.pages],
            },
            schema={"URL": pl.String, "TEXT": pl.String, "WIDTH": pl.Int32, "HEIGHT": pl.Int32, "NSFW": pl.String},
        )

    def truth(self) -> dict[str, tuple[SceneFace, ...]]:
        """The faces of the picture behind each URL, none where no picture comes; computed without painting."""
        faces: dict[int, tuple[SceneFace, ...]] = {}
        truth: dict[str, tuple[SceneFace, ...]] = {}
        for page in self.pages:
            if page.behaviour in USABLE and page.scene not in faces:
                faces[page.scene] = scene_faces(plan_scene(page.scene))
            truth[page.url] = faces[page.scene] if page.behaviour in USABLE else ()
        return truth

    def page_at(self, host: str, path: str) -> Page | None:
        """The page of a host (without port) and path, None if there is none."""
        return self._by_place.get((host, path))

    def body_of(self, page: Page) -> tuple[bytes, str]:
        """The picture's file and its content type; draws it."""
        if page.behaviour is Behaviour.too_many_pixels:
            return oversized_png(), "image/png"
        return encode_scene(draw_scene(page.scene).image, page.variant, page.scene)


def _make_pages(seed: int, count: int) -> list[Page]:
    rng = np.random.default_rng((_WORLD_STREAM, seed))
    kinds = _dealt(rng, count, _SHARES, Behaviour.ok)
    variants = _dealt(rng, count, VARIANT_SHARES, "jpeg")
    flags = _dealt(rng, count, _NSFW_SHARES, "UNLIKELY")
    scene_seeds = rng.permutation(count) + int(rng.integers(2**40))
    pages = []
    for row in range(count):
        plan = plan_scene(int(scene_seeds[row]))
        behaviour = kinds[row]
        size = (30_000, 30_000) if behaviour is Behaviour.too_many_pixels else (plan.width, plan.height)
        suffix = {"png": "png", "palette": "png", "alpha": "png", "webp": "webp", "gif": "gif"}.get(
            variants[row], "jpg"
        )
        pages.append(
            Page(
                url=f"http://{_host(rng, behaviour)}/{rng.choice(('p', 'img', 'media', 'u'))}/{row:06d}.{suffix}",
                behaviour=behaviour,
                scene=plan.seed,
                variant=variants[row],
                width=size[0],
                height=size[1],
                text=alt_text(rng, _first_labels(plan)),
                nsfw=flags[row],
                hops=int(rng.integers(1, 4)) if behaviour is Behaviour.redirect else 0,
            )
        )
    return _with_duplicates(rng, pages)


def _dealt(rng: np.random.Generator, count: int, shares: Mapping[_Kind, float], rest: _Kind) -> list[_Kind]:
    """One kind a row: each kind's share of the rows, ``rest`` for the others, in random order."""
    least = 1 if count >= _SOME_OF_EACH_FROM else 0
    dealt = [kind for kind, share in shares.items() for _ in range(max(least, round(share * count)))][:count]
    dealt += [rest] * (count - len(dealt))
    return [dealt[i] for i in rng.permutation(count)]


def _host(rng: np.random.Generator, behaviour: Behaviour) -> str:
    if behaviour is Behaviour.hangs:
        return HANGING_HOSTS[int(rng.integers(len(HANGING_HOSTS)))]
    if behaviour is Behaviour.unknown_host:
        return UNKNOWN_HOST
    return FORBIDDEN_HOST if behaviour is Behaviour.robots_forbidden else _HOSTS[int(rng.integers(len(_HOSTS)))]


def _first_labels(plan: ScenePlan) -> frozenset[str] | None:
    return sample_labels(max(plan.places, key=lambda place: place.scale).seed) if plan.places else None


def _with_duplicates(rng: np.random.Generator, pages: list[Page]) -> list[Page]:
    """Some rows repeat an earlier URL under another text; some other URLs send an earlier one's bytes."""
    plain = [row for row, page in enumerate(pages) if page.behaviour is Behaviour.ok]
    same_url, same_bytes = (round(share * len(pages)) for share in (_SAME_URL_SHARE, _SAME_BYTES_SHARE))
    chosen = rng.permutation(plain)[: 2 * (same_url + same_bytes)]
    for number, pair in enumerate(chosen[: len(chosen) // 2 * 2].reshape(-1, 2)):
        first, second = (int(row) for row in np.sort(pair))
        original, copy = pages[first], pages[second]
        if number < same_url:
            pages[second] = replace(original, text=copy.text)
        else:
            shown = replace(copy, scene=original.scene, variant=original.variant)
            pages[second] = replace(shown, width=original.width, height=original.height)
    return pages
