"""Which rule made the labels of a data set, as the files of ``face_attributes`` themselves say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Final

from facecaption_ml.attributes.labels import RULE_NOTE
from facecaption_ml.storage.store import Store

_UNKNOWN: Final = "a rule that version 0.1 did not record"
_TABLE: Final = "face_attributes"


def label_rules(store: Store, shards: Iterable[str]) -> Counter[str]:
    """The rules' words, each with the number of shards whose labels it made; shards without such a table do not count."""
    rules: Counter[str] = Counter()
    for shard in shards:
        if store.has_table(_TABLE, shard):
            rules[rule_of(store, shard)] += 1
    return rules


def rule_of(store: Store, shard: str) -> str:
    """The words of the rule that made a shard's labels."""
    note = store.table_notes(_TABLE, shard).get(RULE_NOTE)
    return str(json.loads(note)["rule"]) if note else _UNKNOWN


def in_words(rules: Counter[str]) -> str:
    """One rule as it is; of several, those of most shards first, each with their number."""
    if len(rules) < 2:
        return next(iter(rules), "no labels of a predictor")
    return "; ".join(f"{rule} in {count:,} shard{'s' if count > 1 else ''}" for rule, count in rules.most_common())
