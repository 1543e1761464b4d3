"""``facecaption search``: a description in, the nearest faces out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facecaption_assets.resources.models import load_variant
from facecaption_assets.settings import Settings
from facecaption_ml.decoding import as_rgb, encode_jpeg
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.local_files import write_file
from facecaption_ml.storage.store import Store, StoreError

if TYPE_CHECKING:
    from facecaption_ml.flip import Flip
    from facecaption_ml.flip.use.search import ShownFace

_CAPTION_WORDS = 40  # shown on the terminal; the JSON has all


def search_faces(settings: Settings, text: str, top: int, variant: str, out: Path, as_json: bool) -> None:
    """Print the ``top`` faces nearest to ``text`` and write them as a picture to ``out``.

    Faces that the checkpoint has not seen are encoded first. Raises ValueError, StoreError or OSError with one line for an
    empty text, a place that cannot be written, no checkpoint of the variant and no faces.
    """
    text = " ".join(text.split())
    if not text:
        raise FaceCaptionError("the description is empty: say what to look for, such as 'a smiling woman with glasses'")
    _require_jpeg(out)
    store = settings.open_store()
    flip = load_variant(settings, store, variant)
    shown, searched = _nearest(store, flip, text, top)
    write_file(out, _sheet(shown))
    if as_json:
        click.echo(json.dumps(_record(text, variant, flip.version, searched, out, shown), ensure_ascii=False))
    else:
        _print(text, searched, out, shown)


def _require_jpeg(out: Path) -> None:
    """Before minutes of encoding, not after."""
    if out.suffix.lower() not in (".jpg", ".jpeg"):
        raise FaceCaptionError(f"--out {out}: the sheet is a JPEG, so its name should end in .jpg")
    if not out.parent.is_dir():
        raise FaceCaptionError(f"--out {out}: there is no folder {out.parent}")


def _nearest(store: Store, flip: Flip, text: str, top: int) -> tuple[list[ShownFace], int]:
    """The faces, and among how many."""
    from facecaption_assets.factories.progress import Progress
    from facecaption_ml.flip.use.face_features import FaceFeatures
    from facecaption_ml.flip.use.search import nearest_faces, shown_faces

    features = FaceFeatures(store, flip.version)
    counts = features.update(flip, Progress("encoding faces", "faces"))
    if counts.unreadable:
        click.echo(f"{counts.unreadable:,} crops did not decode and are left out", err=True)
    if not counts.searchable:
        raise StoreError(f"no faces to search: face_crops in {store.root} holds none that decode")
    (found,) = nearest_faces(features, flip.encode_texts([text]), top)
    return shown_faces(store, found), counts.searchable


def _sheet(shown: list[ShownFace]) -> bytes:
    from facecaption_ml.faces import contact_sheet

    captions = [f"{face.found.similarity:.3f} {face.caption or ''}" for face in shown]
    images = [as_rgb(face.image) for face in shown]
    return encode_jpeg(contact_sheet(images, captions, columns=4, cell=260, caption_lines=None), quality=90)


def _print(text: str, searched: int, out: Path, shown: list[ShownFace]) -> None:
    click.echo(f"{text!r}: {len(shown)} nearest of {searched:,} faces, on {out}")
    for rank, face in enumerate(shown, start=1):
        words = (face.caption or "(no caption)").split()
        caption = " ".join(words[:_CAPTION_WORDS]) + (" …" if len(words) > _CAPTION_WORDS else "")
        click.echo(f"{rank:>3}  {face.found.similarity:.4f}  {face.found.face_id}  {caption}")


def _record(
    text: str, variant: str, version: str, searched: int, out: Path, shown: list[ShownFace]
) -> dict[str, object]:
    faces = [
        {
            "rank": rank,
            "similarity": round(face.found.similarity, 6),
            "face_id": face.found.face_id,
            "caption": face.caption,
        }
        for rank, face in enumerate(shown, start=1)
    ]
    return {
        "text": text,
        "variant": variant,
        "checkpoint": version,
        "faces": searched,
        "sheet": str(out),
        "nearest": faces,
    }
