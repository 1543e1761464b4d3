"""From a list of images to a manifest in shards: tables of URLs, folders of pictures, or any frames.

Every row of a source ends in a shard or is dropped with a reason, by name and number; what the source holds is counted in
another way than it is read (``ManifestCounts.records``). A source is read in batches; apart from the rows of one shard, only an
8-byte id per row is kept, which is what it takes to mark the URLs that occur more than once in the whole source (400 MB for
50M rows).
"""

from facecaption_ml.dataset.options import SourceColumns, SourceRules
from facecaption_ml.dataset.sources.columns import normalise
from facecaption_ml.dataset.sources.counts import (
    ManifestCounts,
    Repair,
    SourceColumnError,
    SourceError,
    SourceKindError,
    SourceOutcome,
)
from facecaption_ml.dataset.sources.names import PICTURE_SUFFIXES, TABLE_SUFFIXES, is_picture, is_table
from facecaption_ml.dataset.sources.reading import names_pictures, read_source
from facecaption_ml.dataset.sources.shards import build_shards, mark_duplicates, occurs_in, sample_id, shard_name

__all__ = [
    "PICTURE_SUFFIXES",
    "TABLE_SUFFIXES",
    "ManifestCounts",
    "Repair",
    "SourceColumnError",
    "SourceColumns",
    "SourceError",
    "SourceKindError",
    "SourceOutcome",
    "SourceRules",
    "build_shards",
    "is_picture",
    "is_table",
    "mark_duplicates",
    "names_pictures",
    "normalise",
    "occurs_in",
    "read_source",
    "sample_id",
    "shard_name",
]
