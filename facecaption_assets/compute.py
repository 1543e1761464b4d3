"""What each asset needs to run: cores, memory, GPUs. A laptop ignores the Kubernetes part; pools hold everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True)
class Compute:
    """A class of machine. ``pool`` limits how many steps of it run at once (``dagster instance concurrency set``)."""

    name: str
    cores: int
    memory_gib: int
    gpus: int = 0
    pool: str | None = None
    node_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def op_tags(self) -> dict[str, Any]:
        """Tags that reach the step's pod under ``k8s_job_executor``, and a plain label for everybody else."""
        resources = {"cpu": str(self.cores), "memory": f"{self.memory_gib}Gi"}
        if self.gpus:
            resources["nvidia.com/gpu"] = str(self.gpus)
        pod: dict[str, Any] = {"node_selector": dict(self.node_labels)} if self.node_labels else {}
        if self.gpus:
            pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
        kubernetes: dict[str, Any] = {
            "container_config": {"resources": {"requests": resources, "limits": resources}},
            "job_spec_config": {"backoff_limit": 0},
        }
        if pod:
            kubernetes["pod_spec_config"] = pod
        return {"facecaption/compute": self.name, "dagster-k8s/config": kubernetes}


_A100: Final = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}

CPU: Final = Compute("cpu", cores=2, memory_gib=8)
DOWNLOAD: Final = Compute("download", cores=4, memory_gib=16, pool="download")
ONE_A100: Final = Compute("a100", cores=8, memory_gib=64, gpus=1, pool="a100", node_labels=_A100)
