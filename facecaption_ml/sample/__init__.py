"""A small world of drawn people: portraits from the 40 attributes, scenes, alt text, and the web that serves them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facecaption_ml.sample.attribute_sampling import sample_labels
    from facecaption_ml.sample.episodes import sketch_episode
    from facecaption_ml.sample.labelled import labelled_portraits
    from facecaption_ml.sample.portraits import Portrait, Stroke, draw_portrait
    from facecaption_ml.sample.scenes import Scene, SceneFace, draw_scene
    from facecaption_ml.sample.server import SampleServer, serve_in_subprocess
    from facecaption_ml.sample.world import SampleWorld

_HOMES = {
    "Portrait": "portraits",
    "SampleServer": "server",
    "SampleWorld": "world",
    "Scene": "scenes",
    "SceneFace": "scenes",
    "Stroke": "portraits",
    "draw_portrait": "portraits",
    "draw_scene": "scenes",
    "labelled_portraits": "labelled",
    "sample_labels": "attribute_sampling",
    "serve_in_subprocess": "server",
    "sketch_episode": "episodes",
}
__all__ = [
    "Portrait",
    "SampleServer",
    "SampleWorld",
    "Scene",
    "SceneFace",
    "Stroke",
    "draw_portrait",
    "draw_scene",
    "labelled_portraits",
    "sample_labels",
    "serve_in_subprocess",
    "sketch_episode",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
