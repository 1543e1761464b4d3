"""``facecaption search``: a description in, the faces that fit it out; of the data set, or of a folder of photographs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import click
import numpy as np

from facecaption_assets.commands.pictures import pictures_in
from facecaption_assets.resources.models import load_detector, load_flip
from facecaption_assets.settings import Settings
from facecaption_ml.decoding import as_rgb, encode_jpeg
from facecaption_ml.devices import resolve_device
from facecaption_ml.errors import FaceCaptionError, naming
from facecaption_ml.storage.local_files import write_file
from facecaption_ml.storage.store import Store, StoreError
from facecaption_ml.texts import shortened

if TYPE_CHECKING:
    from facecaption_ml.flip import Flip
    from facecaption_ml.flip.use.search import FoundFace
    from facecaption_ml.search.photos import PhotoFace, PhotoFaces
    from facecaption_ml.search.query import Query

By = Literal["auto", "labels", "flip", "both"]
_CAPTION_WORDS: Final = 40  # shown on the terminal; the JSON has all
_MIN_SCORE: Final = 0.9  # of a face in a photograph, as ``facecaption caption`` has it


@dataclass(frozen=True)
class _Shown:
    """A face as a person sees it. ``name``: its face_id, or photo and number; ``record``: what JSON says beside these."""

    name: str
    similarity: float
    image: Any
    caption: str | None
    record: dict[str, Any]


@dataclass(frozen=True)
class _Answer:
    """What was found among ``faces`` faces, and how."""

    by: str
    labels: str
    variant: str
    checkpoint: str
    faces: int
    shown: Sequence[_Shown]


def search_faces(
    settings: Settings,
    text: str,
    top: int,
    variant: str,
    out: Path,
    as_json: bool,
    where: Path | None = None,
    by: By = "auto",
) -> None:
    """Print the ``top`` faces that fit ``text`` and write them as a picture to ``out``.

    ``where``: a folder of photographs, or another home of this project; None: the settings' own. ``by``: the labels that the
    text names, FLIP, or both. ``auto``: FLIP where the text names no label or no face has any; else, for the data set, labels,
    and for photographs the way that the checkpoint was measured to do best. ``variant``: the data set's checkpoint, the
    bundled one, or ``auto``: ``flip`` where the data set has it, else the bundled one. Raises FaceCaptionError, ValueError or
    OSError with one line for an empty text, a place that cannot be written, no checkpoint where one is needed and no faces.
    """
    from facecaption_ml.search.query import read_query

    text = " ".join(text.split())
    query = read_query(text)
    _require_jpeg(out)
    if by in ("labels", "both") and query.is_empty:
        raise FaceCaptionError(
            f"{_repeated(text)} names none of the 40 attributes, so there is nothing for labels: use --by flip"
        )
    if where is not None and not (where / "store").is_dir():
        answer = _in_photos(settings, where, text, query, top, variant, by)
    else:
        own = settings if where is None else settings.replaced(home=where, store="")
        answer = _in_data_set(own, text, query, top, variant, by)
    write_file(out, _sheet(answer.shown))
    if as_json:
        click.echo(json.dumps(_record(text, out, answer), ensure_ascii=False))
    else:
        _print(text, out, answer)


def _require_jpeg(out: Path) -> None:
    """Before minutes of encoding, not after."""
    if out.suffix.lower() not in (".jpg", ".jpeg"):
        raise FaceCaptionError(f"--out {out}: the sheet is a JPEG, so its name should end in .jpg")
    if not out.parent.is_dir():
        raise FaceCaptionError(f"--out {out}: there is no folder {out.parent}")


def _flip(settings: Settings, store: Store, text: str, query: Query, variant: str) -> tuple[Flip, str]:
    """The checkpoint and its name. Where there is none, the error says of a text without attributes that nothing else could
    answer."""
    try:
        return load_flip(settings, store, variant)
    except FaceCaptionError as error:
        if not query.is_empty:
            raise
        raise FaceCaptionError(
            f"{_repeated(text)} names none of the 40 attributes, so FLIP is needed: {error}"
        ) from error


def _repeated(text: str) -> str:
    from facecaption_ml.search.query import SHOWN

    return repr(shortened(text, SHOWN))


# -- the data set --------------------------------------------------------------------------------------------------------


def _in_data_set(settings: Settings, text: str, query: Query, top: int, variant: str, by: By) -> _Answer:
    from facecaption_ml.search.dataset import has_labels, labelled_faces
    from facecaption_ml.search.ways import measured_weight

    store = settings.open_store()
    if by == "auto":
        by = "labels" if not query.is_empty and has_labels(store) else "flip"
    if by == "labels":
        found, searched = labelled_faces(store, query, top)
        return _Answer(by, str(query), "", "", searched, _of_data_set(store, found))
    flip, name = _flip(settings, store, text, query, variant)
    if by == "flip":
        found, searched = _nearest(store, flip, text, top)
        return _Answer(by, "", name, flip.version, searched, _of_data_set(store, found))
    features = _updated_features(store, flip)[0]
    (wanted,) = flip.encode_texts([text])
    found, searched = labelled_faces(store, query, top, features, wanted, measured_weight(flip))
    return _Answer(by, str(query), name, flip.version, searched, _of_data_set(store, found))


def _nearest(store: Store, flip: Flip, text: str, top: int) -> tuple[list[FoundFace], int]:
    """The faces, and among how many."""
    from facecaption_ml.flip.use.search import nearest_faces

    features, searchable = _updated_features(store, flip)
    (found,) = nearest_faces(features, flip.encode_texts([text]), top)
    return found, searchable


def _updated_features(store: Store, flip: Flip) -> tuple[Any, int]:
    """The features of every face, and how many there are. Raises StoreError where there are none."""
    from facecaption_assets.factories.progress import Progress
    from facecaption_ml.flip.use.face_features import FaceFeatures

    features = FaceFeatures(store, flip.version)
    counts = features.update(flip, Progress("encoding faces", "faces"))
    if counts.unreadable:
        click.echo(f"{counts.unreadable:,} crops did not decode and are left out", err=True)
    if not counts.searchable:
        raise StoreError(f"no faces to search: face_crops in {store.root} holds none that decode")
    return features, counts.searchable


def _of_data_set(store: Store, found: Sequence[FoundFace]) -> list[_Shown]:
    from facecaption_ml.flip.use.search import shown_faces

    return [
        _Shown(
            face.found.face_id, face.found.similarity, as_rgb(face.image), face.caption, {"face_id": face.found.face_id}
        )
        for face in shown_faces(store, found)
    ]


# -- a folder of photographs -----------------------------------------------------------------------------------------------


def _in_photos(settings: Settings, folder: Path, text: str, query: Query, top: int, variant: str, by: By) -> _Answer:
    from facecaption_assets.factories.progress import Progress
    from facecaption_ml.search.photo_features import photo_features
    from facecaption_ml.search.query import best, combined
    from facecaption_ml.search.ways import measured_best, measured_weight

    flip, name = (None, "") if by == "labels" else _flip(settings, settings.open_store(), text, query, variant)
    if by == "auto":
        by = "flip" if query.is_empty else cast(By, measured_best(flip))
    finder = _finder(settings, folder)
    faces = _faces_of(finder, folder)
    margin = settings.crops.margin
    by_label = query.scores(np.stack([face.probabilities for face in faces]))
    score = by_label
    if flip is not None and by != "labels":
        features = photo_features(faces, flip, finder.folder, margin, Progress("encoding faces", "faces"))
        by_flip = features @ flip.encode_texts([text])[0]
        score = by_flip if by == "flip" else combined(by_label, by_flip, measured_weight(flip))
    shown = [
        _Shown(
            faces[place].name,
            float(score[place]),
            faces[place].crop(margin),
            _asked(query, faces[place]),
            {
                "photo": str(faces[place].path),
                "box": [round(value, 1) for value in faces[place].face.box],
                "score": round(faces[place].face.score, 4),
            },
        )
        for place in best(score, top).tolist()
    ]
    used = (name, flip.version) if flip and by != "labels" else ("", "")
    return _Answer(by, "" if by == "flip" else str(query), *used, len(faces), shown)


def _finder(settings: Settings, folder: Path) -> PhotoFaces:
    """Raises FaceCaptionError where there is no such folder, and CheckpointError naming the setting for a missing predictor."""
    from facecaption_ml.attributes import AttributePredictor
    from facecaption_ml.search.photos import PhotoFaces, looks_version

    if not folder.is_dir():
        raise FaceCaptionError(f"--in {folder}: there is no such folder")
    device = resolve_device(settings.device, settings.threads)
    with naming("FACECAPTION_ATTRIBUTE_WEIGHTS"):
        predictor = AttributePredictor.load(settings.attributes.weights or "bundled", device=device)
    version = looks_version(
        settings.detector.model_dump_json(),
        settings.crops.min_side,
        settings.crops.margin,
        predictor.version,
        _MIN_SCORE,
    )
    return PhotoFaces(
        lambda: load_detector(settings), predictor, settings.home / "cache" / "photo_faces", version, settings.crops.margin,
        _MIN_SCORE,
    )  # fmt: skip


def _faces_of(finder: PhotoFaces, folder: Path) -> list[PhotoFace]:
    """Raises FaceCaptionError where there is no picture in the folder, and where none shows a face."""
    from facecaption_assets.factories.progress import Progress

    paths = pictures_in(folder)
    faces, faults = finder.of(paths, Progress("faces of photos", "photos"))
    for line in faults:
        click.echo(f"Left out: {line}", err=True)
    if not faces:
        raise FaceCaptionError(f"--in {folder}: no face was found in its {len(paths):,} pictures")
    return faces


def _asked(query: Query, face: PhotoFace) -> str:
    """The probabilities of what the query names."""
    from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE

    own = dict(zip(ATTRIBUTES, face.probabilities.tolist(), strict=True))
    own[FEMALE] = 1 - own["Male"]
    return ", ".join(f"{name} {own[name]:.2f}" for name in (*query.wanted, *query.unwanted)) or face.path.name


# -- what is shown ---------------------------------------------------------------------------------------------------------


def _sheet(shown: Sequence[_Shown]) -> bytes:
    from facecaption_ml.faces import contact_sheet

    captions = [f"{face.similarity:.3f} {face.caption or ''}" for face in shown]
    images = [face.image for face in shown]
    return encode_jpeg(contact_sheet(images, captions, columns=4, cell=260, caption_lines=None), quality=90)


def _print(text: str, out: Path, answer: _Answer) -> None:
    read = f", read as {answer.labels}" if answer.labels else ""
    click.echo(f"{_repeated(text)}{read}: {len(answer.shown)} nearest of {answer.faces:,} faces, on {out}")
    for rank, face in enumerate(answer.shown, start=1):
        words = (face.caption or "(no caption)").split()
        caption = " ".join(words[:_CAPTION_WORDS]) + (" …" if len(words) > _CAPTION_WORDS else "")
        click.echo(f"{rank:>3}  {face.similarity:.4f}  {face.name}  {caption}")


def _record(text: str, out: Path, answer: _Answer) -> dict[str, object]:
    faces = [
        {"rank": rank, "similarity": round(face.similarity, 6), **face.record, "caption": face.caption}
        for rank, face in enumerate(answer.shown, start=1)
    ]
    return {
        "text": text,
        "by": answer.by,
        "labels": answer.labels,
        "variant": answer.variant,
        "checkpoint": answer.checkpoint,
        "faces": answer.faces,
        "sheet": str(out),
        "nearest": faces,
    }
