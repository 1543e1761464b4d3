"""Asset → pod, as docs/kubernetes.md shows it: read from the tags that the assets of real definitions have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from facecaption_assets.machines.compute import GPU, KUBERNETES, NODE_POOL, SPOT
from facecaption_ml.markdown import markdown_table

if TYPE_CHECKING:
    import dagster as dg

HEADS: Final = ("asset", "node pool", "cores", "memory", "GPUs", "/dev/shm", "disk", "at most", "spot", "pool")
_NONE: Final = "–"


def pod_configs(definitions: dg.Definitions) -> dict[str, dict[str, Any]]:
    """What each asset asks of Kubernetes (the tag ``dagster-k8s/config``), upstream first."""
    configs = {}
    for key in definitions.resolve_asset_graph().toposorted_asset_keys:
        config = definitions.get_assets_def(key).op.tags[KUBERNETES]
        configs[key.to_user_string()] = json.loads(config) if isinstance(config, str) else dict(config)
    return configs


def pod_table(definitions: dg.Definitions) -> str:
    """The table in Markdown, without a line break at the end."""
    rows = [
        [f"`{name}`", *_cells(config), definitions.get_assets_def(name).op.pool or _NONE]
        for name, config in pod_configs(definitions).items()
    ]
    return markdown_table(HEADS, rows, "llrrrrrrll")


def _cells(config: Mapping[str, Any]) -> list[str]:
    requests, pod = config["container_config"]["resources"]["requests"], config["pod_spec_config"]
    shared = [volume["empty_dir"]["size_limit"] for volume in pod.get("volumes", ())]
    tolerated = {toleration["key"] for toleration in pod.get("tolerations", ())}
    return [
        pod["node_selector"][NODE_POOL],
        requests["cpu"],
        _size(requests["memory"]),
        requests.get(GPU, _NONE),
        _size(shared[0]) if shared else _NONE,
        _size(requests["ephemeral-storage"]),
        _time(pod["active_deadline_seconds"]),
        "yes" if SPOT in tolerated else "no",
    ]


def _size(quantity: str) -> str:
    return quantity.replace("Gi", " GiB")


def _time(seconds: int) -> str:
    hours = seconds / 3600
    return f"{hours / 24:g} days" if hours > 24 else f"{hours:g} h"
