"""``facecaption caption``: photographs in, captions out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from facecaption_assets.commands.pictures import pictures_in
from facecaption_ml.decoding import UndecodableImage, encode_jpeg
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.local_files import write_file

if TYPE_CHECKING:
    from facecaption_ml.photos import CaptionedFace


def caption_photos(
    photos: Iterable[Path],
    as_json: bool,
    sheet: Path | None,
    min_score: float,
    weights: str,
    attributes: str,
    seed: int,
) -> bool:
    """Print the captions of every photograph. False where one could not be read; the others are captioned all the same."""
    from facecaption_assets.resources.models import load_photo_captioner
    from facecaption_assets.settings import load_settings

    paths = list(_files(photos))
    settings = load_settings()
    captioner = load_photo_captioner(
        settings,
        weights=weights,
        attributes=attributes,
        grammar=settings.captions.grammar,
        min_score=min_score,
        seed=seed,
        excluded=settings.captions.exclude,
    )
    everything: list[CaptionedFace] = []
    good = True
    for path in tqdm(paths, unit="photo", disable=None if len(paths) > 3 else True, leave=False):
        try:
            faces = captioner.caption(path.read_bytes())[1]
        except (OSError, UndecodableImage) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            click.echo(f"Error: {path}: {reason}", err=True)
            good = False
            continue
        if sheet:
            everything += faces
        if as_json:
            shown = [face.as_json() for face in faces]
            click.echo(json.dumps({"photo": str(path), "label_rule": captioner.rule.words, "faces": shown}))
        else:
            _print(path, faces)
    if sheet:
        _write_sheet(sheet, everything)
    return good


def _files(photos: Iterable[Path]) -> Iterator[Path]:
    """The files named, and the pictures of the folders named. Raises FaceCaptionError naming a folder without any."""
    for path in photos:
        if path.is_dir():
            yield from pictures_in(path)
        else:
            yield path


def _print(path: Path, faces: list[CaptionedFace]) -> None:
    click.echo(f"{path}: {len(faces) or 'no'} face{'s' if len(faces) != 1 else ''}")
    for face in faces:
        x0, y0, x1, y1 = (round(float(value)) for value in face.face.box)
        click.echo(f"  {x1 - x0}×{y1 - y0} px at ({x0}, {y0}), score {face.face.score:.3f}")
        click.echo(f"    {face.caption}")
        click.echo(f"    [{', '.join(face.labels) or 'no certain attribute'}]")


def _write_sheet(path: Path, faces: list[CaptionedFace]) -> None:
    from facecaption_ml.faces import contact_sheet

    if not faces:
        raise FaceCaptionError(f"no face found, so {path} is not written")
    image = contact_sheet(
        [face.crop for face in faces], [face.caption for face in faces], columns=4, cell=260, caption_lines=None
    )
    write_file(path, encode_jpeg(image, quality=90))
