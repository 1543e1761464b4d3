"""The nodes of deploy/eks/cluster.yaml, two of each group, as big as their machines."""

from __future__ import annotations

from typing import Final

from cluster_objects import DEPLOY, read_yaml
from facecaption_assets.machines.compute import GPU
from process_kubelet import Node

_MACHINES: Final = {
    "m6i.2xlarge": {"cpu": "8", "memory": "32Gi"},
    "m6i.4xlarge": {"cpu": "16", "memory": "64Gi"},
    "p4de.24xlarge": {"cpu": "96", "memory": "1152Gi", GPU: "8"},
}
EACH: Final = 2


def nodes() -> list[Node]:
    found = []
    for group in read_yaml(DEPLOY / "eks" / "cluster.yaml")["managedNodeGroups"]:
        machine = group.get("instanceType") or group["instanceTypes"][0]
        quantities = {**_MACHINES[machine], "ephemeral-storage": f"{group['volumeSize']}Gi", "pods": "50"}
        for number in range(EACH):
            name = f"{group['name']}-{number}"
            found.append(Node(name, group["labels"], group.get("taints", []), quantities))
    return found


def of_pool(pool: str) -> list[str]:
    """The names of a pool's nodes."""
    return [node.name for node in nodes() if node.labels["facecaption/node-pool"] == pool]
