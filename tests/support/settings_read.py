"""Which settings the result of each asset depends on, written down by hand beside what the assets themselves declare."""

from __future__ import annotations

from facecaption_assets.factories.code_versions import is_operational
from facecaption_assets.settings import SETTINGS

FLIP = {name for name, setting in SETTINGS.items() if setting.path[0] == "flip" and not is_operational(setting)}
PROBES = {
    task: {name for name, setting in SETTINGS.items() if setting.path[:2] == ("benchmarks", task)}
    for task in ("retrieval", "attributes", "sketches", "shared", "folders", "baselines")
}
LLM = {"llm_backend", "llm_model", "llm_temperature", "llm_top_p", "llm_max_new_tokens", "llm_prompt", "llm_guided",
       "llm_attempts", "llm_least_fluency", "llm_model_name", "llm_extra_body"}  # fmt: skip
VLLM = {"vllm_dtype", "vllm_quantization", "vllm_engine_args"}
"""They count for captions once they are set, not before."""
DRAWN = {"benchmark_sample_pictures", "benchmark_sample_drawings"}
BENCHMARK = PROBES["shared"] | PROBES["folders"] | PROBES["baselines"] | DRAWN | {"seed"}
RELEASE = {"release_images", "validation_share", "test_share"}
WORLD = {"sample_scenes", "seed"}
READ = {
    "source_manifest": {"source", "url_column", "text_column", "width_column", "height_column", "nsfw_column", "file_column",
                        "shard_size", "allow_nsfw", "nsfw_values", "source_kind", "source_tsv_quoting", *WORLD},
    "raw_images": {"max_image_bytes", "max_image_pixels", "max_redirects", "user_agent_contact", "respect_opt_out",
                   "allow_private_addresses", "success_floor", *WORLD},
    "face_crops": {"detector_weights", "detector_network", "detector_working_size", "min_face_score", "min_face_side",
                   "crop_margin"},
    "attribute_model": {"attribute_weights", "attribute_data", "attribute_preset", "attribute_init", "attribute_epochs",
                        "attribute_threshold", "seed", "sample_portraits"},
    "face_attributes": {"attribute_threshold", "label_precision", "min_labels"},
    "template_captions": {"grammar", "caption_exclude", "seed"},
    "llm_captions": {*LLM, "seed"},
    "rewriting_demonstration": {*LLM, "llm_demonstration", "seed"},
    "facecaption_dataset": RELEASE,
    "facecaption_release": {*RELEASE, "grammar", "caption_exclude", "profile"},
    "dataset_comparison": {"seed"},
    "text_statistics": {"seed"},
    "image_quality": {"clip", "quality_folders", "quality_sample", "seed"},
    "image_text_matching": {"itm_model", "matching_sample", "seed"},
    "flip_checkpoint": {*FLIP, "grammar", "seed"},
    "flip_ablation": {*FLIP, *PROBES["retrieval"], *PROBES["attributes"], *PROBES["sketches"], *PROBES["shared"], *DRAWN},
    "retrieval_benchmark": {*BENCHMARK, *PROBES["retrieval"]},
    "attribute_benchmark": {*BENCHMARK, *PROBES["attributes"]},
    "sketch_benchmark": {*BENCHMARK, *PROBES["sketches"]},
    "benchmark_tables": {"benchmark_regression_tolerance"},
}  # fmt: skip
