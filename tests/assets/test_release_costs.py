"""What stands in the data card of the shards' own records: what the language model took, and the networks' versions."""

from __future__ import annotations

import dagster as dg

from facecaption_assets.factories.records import COST, TOKENS, summed, told
from facecaption_ml.dataset.label_rules import in_words

S = ["shard-00000", "shard-00001", "shard-00002"]


def record(instance: dg.DagsterInstance, shard: str, **metadata: float) -> None:
    named = {name.replace("_", " "): value for name, value in metadata.items()}
    instance.report_runless_asset_event(dg.AssetMaterialization("llm_captions", partition=shard, metadata=named))


def test_the_latest_record_of_each_shard_counts_once() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        record(instance, S[0], prompt_tokens=1000, completion_tokens=100)
        record(instance, S[0], prompt_tokens=10, completion_tokens=1, tokens_of_answers_from_the_cache=1089)
        record(instance, S[1], prompt_tokens=500, completion_tokens=50, cost_with_the_answers_from_the_cache=0.25)
        record(instance, S[2], mean_words=30)
        record(instance, "shard-00009", prompt_tokens=7)  # not of this release
        assert summed(instance, "llm_captions", S, (*TOKENS, COST)) == {
            "prompt tokens": 510,
            "completion tokens": 51,
            "tokens of answers from the cache": 1089,
            "cost with the answers from the cache": 0.25,
        }
        assert summed(instance, "llm_captions", S[2:], (*TOKENS, COST)) == {}


def test_the_versions_of_a_network_are_those_of_the_shards_latest_records() -> None:
    def made(instance: dg.DagsterInstance, shard: str, version: str) -> None:
        event = dg.AssetMaterialization("face_attributes", partition=shard, metadata={"predictor": version})
        instance.report_runless_asset_event(event)

    with dg.DagsterInstance.ephemeral() as instance:
        made(instance, S[0], "aaaa")
        made(instance, S[0], "bbbb")
        made(instance, S[1], "bbbb")
        made(instance, S[2], "cccc")
        assert in_words(told(instance, "face_attributes", S[:2], "predictor")) == "bbbb"
        assert in_words(told(instance, "face_attributes", S, "predictor")) == "bbbb in 2 shards; cccc in 1 shard"
        assert not told(instance, "face_crops", S, "detector weights")
