"""A small world of drawn people: portraits from the 40 attributes, scenes, alt text, and the web that serves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facecaption_ml.lazy import lazy_names

if TYPE_CHECKING:
    from facecaption_ml.sample.attribute_sampling import sample_labels
    from facecaption_ml.sample.episodes import sketch_episode
    from facecaption_ml.sample.labelled import labelled_portraits
    from facecaption_ml.sample.portraits import Portrait, Stroke, draw_portrait
    from facecaption_ml.sample.scenes import Scene, SceneFace, draw_scene
    from facecaption_ml.sample.server import SampleServer, serve_in_subprocess
    from facecaption_ml.sample.world import SampleWorld

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

__getattr__ = lazy_names(
    __name__,
    {
        "attribute_sampling": ("sample_labels",),
        "episodes": ("sketch_episode",),
        "labelled": ("labelled_portraits",),
        "portraits": ("Portrait", "Stroke", "draw_portrait"),
        "scenes": ("Scene", "SceneFace", "draw_scene"),
        "server": ("SampleServer", "serve_in_subprocess"),
        "world": ("SampleWorld",),
    },
)
