"""The stages that a plan counts, and what each reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

FUNNEL: Final = ("urls", "images", "crops", "labelled", "released")
"""Where rows are counted, in the order in which they get fewer; of crops there may be more than images."""
_ROWS: Final = ("dagster/row_count",)


@dataclass(frozen=True)
class Stage:
    """``rows``: the point of the funnel that goes in, ``stored``: the one that comes out ("" = the same).

    ``counts``: metadata that add up to the rows that went in (those that begin so, where it ends with a blank), ``free``: the
    one among them that costs nothing. ``reference``: whose reference speed stands in for it. ``prefixes``: where its objects
    are, by default under the asset's name. ``bytes_by``: the asset whose shards tell how many rows the objects have, if not
    its own. Of each shard: ``writes``, ``opens`` (tables and look-ups), ``columns`` (read, of each row group), ``pictures``
    (the table whose pictures are read), ``lists``.
    """

    asset: str
    rows: str
    stored: str = ""
    counts: tuple[str, ...] = _ROWS
    free: str = ""
    reference: str = ""
    prefixes: tuple[str, ...] = ()
    bytes_by: str = ""
    one_step: bool = False
    fixed_size: bool = False
    writes: int = 1
    opens: int = 0
    columns: int = 0
    pictures: str = ""
    lists: int = 0

    def rows_in(self, metadata: Mapping[str, Any]) -> float:
        """Rows that cost something, by a materialization's counts."""
        return sum(
            float(value)
            for name, value in metadata.items()
            if name != self.free
            and any(name == count or (count.endswith(" ") and name.startswith(count)) for count in self.counts)
        )


STAGES: Final = (
    Stage("source_manifest", "urls", bytes_by="raw_images", one_step=True),
    Stage("raw_images", "urls", opens=2, columns=8),
    Stage("face_crops", "images", "crops", ("images: ",), "images: not_fetched", "detection", opens=4, pictures="raw_images"),
    Stage("face_attributes", "crops", "labelled", ("faces: ",), "", "attributes", opens=4, pictures="face_crops"),
    Stage("template_captions", "labelled", opens=1, columns=44),
    # The answers are kept, too, after each 512 of them; the trend of acceptance reads a column of up to 30 earlier shards.
    Stage("llm_captions", "labelled", reference="captions", prefixes=("llm_captions/", "llm_answers/"),
          writes=8, opens=33, columns=34, lists=5),
    Stage("facecaption_dataset", "labelled", "released", ("faces: ",), opens=4, columns=12),
    Stage("dataset_comparison", "released", counts=("rows",), prefixes=("statistics/dataset_comparison/",),
          one_step=True, fixed_size=True, writes=0, opens=2, columns=2),
    Stage("text_statistics", "released", counts=("rows",), prefixes=("statistics/text_statistics/",),
          one_step=True, fixed_size=True, writes=0, opens=2, columns=4),
    Stage("facecaption_release", "released", prefixes=("release/data/",), one_step=True, writes=0, opens=19, columns=12),
)  # fmt: skip
FLIP: Final = Stage("flip_checkpoint", "pairs", pictures="face_crops", writes=0)
"""One training; it is never measured in rows."""
