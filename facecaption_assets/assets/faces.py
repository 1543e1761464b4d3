"""From raw images to aligned face crops."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import dagster as dg
import numpy as np
import polars as pl

from facecaption_assets.checks import tables as checks
from facecaption_assets.factories import previews, sheets
from facecaption_assets.factories.progress import Progress
from facecaption_assets.factories.records import DETECTOR_WEIGHTS
from facecaption_assets.factories.shards import ShardFunction, ShardResult, ShardWork, shard_asset
from facecaption_assets.machines.compute import ONE_A100
from facecaption_assets.resources.data import removals
from facecaption_assets.settings import Settings
from facecaption_ml.dataset.provenance import package_version
from facecaption_ml.schemas import empty

GROUP = "faces"
_NEEDED: Final = ("sample_id", "url", "alt_text", "status", "image", "width", "height")
_SHEET_CROPS: Final = 12
_SHEET_PICTURES: Final = 8


def face_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``face_crops``."""
    return [
        shard_asset(
            name="face_crops",
            open_work=_open_detector,
            deps=["raw_images"],
            checks=checks.FACE_CROPS,
            group=GROUP,
            kinds={"pytorch", "parquet"},
            description=(
                "Faces found by RetinaFace, cut from the original pixels with the eyes level, in native resolution. Kept "
                f"where the score exceeds {settings.crops.min_score:g} and both sides of the box exceed "
                f"{settings.crops.min_side} px (paper §3.1: 0.98 and 128). "
                "Set by FACECAPTION_MIN_FACE_SCORE and FACECAPTION_MIN_FACE_SIDE."
            ),
            code_version="1",
            reads=("detector", "crops"),
            compute=ONE_A100,
            settings=settings,
            required_resources={"detector"},
        )
    ]


@contextlib.contextmanager
def _open_detector(work: ShardWork) -> Iterator[ShardFunction]:
    from facecaption_ml.faces import crop_table

    settings = work.settings
    detector = work.context.resources.detector.load()
    rules = settings.crops

    def crop(shard: str) -> ShardResult:
        removed = removals(settings)
        rows_in, faces, images = 0, Counter[str](), Counter[str]()
        frames = [empty("face_crops")]
        total = work.store.row_count("raw_images", shard)
        progress = Progress(f"face_crops {shard}", "images")
        for batch in work.store.iter_table("raw_images", shard, columns=_NEEDED):
            cropped = crop_table(batch, detector, rules)
            frames.append(cropped.frame)
            faces.update(cropped.faces)
            images.update(cropped.images)
            rows_in += len(batch)
            progress(rows_in, total)
        crops = pl.concat(frames)
        is_removed = crops["face_id"].is_in(list(removed.face_ids))
        if is_removed.any():
            faces["kept"] -= int(is_removed.sum())
            faces["removed_face"] = int(is_removed.sum())
            crops = crops.filter(~is_removed)
        # Pictures with a removed face are shown nowhere, whoever else is in them.
        shown = crops.filter(~crops["sample_id"].is_in(list(removed.samples_of_faces)))
        return ShardResult(
            frame=crops,
            metadata={
                **_detections(work, shard, shown),
                **_metadata(crops, faces, images, detector.weights_version),
                "device": detector.device.type,
                "facecaption": package_version(),
            },
            checks=[
                checks.faces_conserved(len(crops), faces, rows_in, images, total),
                checks.crop_thresholds(crops, rules.min_score, rules.min_side),
                checks.unique(crops, "face_id", "unique_faces"),
            ],
        )

    yield crop


def _metadata(crops: pl.DataFrame, faces: Counter[str], images: Counter[str], weights: str) -> dict[str, Any]:
    pictures: dict[str, Any] = {}
    if len(crops):
        x0, y0, x1, y1 = (crops["box"].arr.get(i).to_numpy() for i in range(4))
        pictures = {
            "face sizes": previews.spread(np.minimum(x1 - x0, y1 - y0), "px, shorter side of the box", "face sizes"),
            "crops": sheets.crop_sheet(crops.head(_SHEET_CROPS), pictures=2),
            "scores": previews.spread(crops["score"].to_numpy(), "", "scores"),
            "mean width, px": round(float(np.mean(x1 - x0)), 1),
        }
    return {
        **pictures,
        **previews.counts("faces", faces),
        **previews.counts("images", images),
        DETECTOR_WEIGHTS: weights,
    }


def _detections(work: ShardWork, shard: str, crops: pl.DataFrame) -> dict[str, Any]:
    """A sheet of a few source pictures with their kept faces marked; nothing where no face was kept."""
    from facecaption_ml.decoding import decode_image
    from facecaption_ml.faces import Face, contact_sheet, draw_faces

    chosen = crops["sample_id"].unique(maintain_order=True).head(_SHEET_PICTURES).to_list()
    if not chosen:
        return {}
    drawn: list[np.ndarray] = []
    for batch in work.store.iter_table("raw_images", shard, columns=("sample_id", "status", "image")):
        for sample_id, image in (
            batch.filter(pl.col("sample_id").is_in(chosen) & (pl.col("status") == "ok"))
            .select("sample_id", "image")
            .iter_rows()
        ):
            rows = crops.filter(pl.col("sample_id") == sample_id).select("box", "landmarks", "score").iter_rows()
            faces = [Face(tuple(box), np.array(points, np.float32), score) for box, points, score in rows]
            drawn.append(draw_faces(decode_image(image["bytes"]), faces))
        if len(drawn) >= len(chosen):
            break
    sheet = contact_sheet(drawn, columns=4, cell=220)
    return {"kept faces in their pictures": previews.shard_picture(sheet, "kept faces", pictures=2)}
