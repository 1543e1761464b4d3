"""What each asset needs to run: cores, memory, GPUs. A laptop ignores the Kubernetes part; pools hold everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True)
class Compute:
    """A class of machine. ``pool`` limits how many steps of it run at once (``dagster instance concurrency set``).

    ``stop_seconds`` is what a pod has between being told to stop and being killed, 0: the cluster's own, 30 as a rule.
    ``shared_memory_gib`` is the size of /dev/shm, through which processes of one machine exchange tensors (NCCL, loader
    processes); 0 leaves a container's own, which is 64 MiB as a rule.
    """

    name: str
    cores: int
    memory_gib: int
    gpus: int = 0
    shared_memory_gib: int = 0
    stop_seconds: int = 0
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
        if self.stop_seconds:
            pod["termination_grace_period_seconds"] = self.stop_seconds
        container: dict[str, Any] = {"resources": {"requests": resources, "limits": resources}}
        if self.shared_memory_gib:
            memory = {"medium": "Memory", "size_limit": f"{self.shared_memory_gib}Gi"}
            pod["volumes"] = [{"name": _SHARED_MEMORY, "empty_dir": memory}]
            container["volume_mounts"] = [{"name": _SHARED_MEMORY, "mount_path": "/dev/shm"}]
        kubernetes: dict[str, Any] = {"container_config": container, "job_spec_config": {"backoff_limit": 0}}
        if pod:
            kubernetes["pod_spec_config"] = pod
        return {"facecaption/compute": self.name, "dagster-k8s/config": kubernetes}


_SHARED_MEMORY: Final = "shared-memory"
_A100: Final = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}

CPU: Final = Compute("cpu", cores=2, memory_gib=8)
DOWNLOAD: Final = Compute("download", cores=4, memory_gib=16, pool="download")
ONE_A100: Final = Compute("a100", cores=8, memory_gib=64, gpus=1, pool="a100", node_labels=_A100)
EIGHT_A100: Final = Compute(
    "a100x8",
    cores=64,
    memory_gib=512,
    gpus=8,
    shared_memory_gib=64,
    stop_seconds=240,  # flip_training.STOP_SECONDS and a little
    pool="a100x8",
    node_labels=_A100,
)
