"""What each asset needs to run: cores, memory, GPUs, disk, time. A laptop ignores the Kubernetes part, but not pools."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from facecaption_assets.settings.deploy import DeploySettings

NODE_POOL: Final = "facecaption/node-pool"
"""The label of a node that says which pool it belongs to: ``cpu``, ``a100`` or ``a100x8``."""
SPOT: Final = "facecaption/spot"
"""The taint and label of nodes that may be taken away at any moment."""
GPU: Final = "nvidia.com/gpu"
KUBERNETES: Final = "dagster-k8s/config"
"""The tag that dagster-k8s reads."""
_PRODUCT: Final = "nvidia.com/gpu.product"
_SHARED_MEMORY: Final = "shared-memory"
_LAPTOP_POOLS: Final = {"a100": "models", "a100x8": "training"}
"""The pools of machines with GPUs where all steps run on this machine, which has none of them."""


@dataclass(frozen=True)
class Compute:
    """A class of machine. ``pool`` limits how many steps of it run at once (``dagster instance concurrency set``).

    ``disk_gib`` is what a pod may write. ``timeout_minutes`` is how long a step's pod may run, from the moment a node has it,
    before Kubernetes ends it. ``stop_seconds`` is what a pod has between being told to stop and being killed, 0: the cluster's
    own, 30 as a rule. ``shared_memory_gib`` is the size of /dev/shm, through which processes of one machine exchange tensors
    (NCCL, loader processes); 0 leaves a container's own, which is 64 MiB as a rule. ``image``, ``product`` and ``spot`` come
    from the settings: see ``under``.
    """

    name: str
    node_pool: str
    cores: int
    memory_gib: int
    disk_gib: int
    timeout_minutes: int
    gpus: int = 0
    shared_memory_gib: int = 0
    stop_seconds: int = 0
    pool: str | None = None
    image: str = ""
    product: str = ""
    spot: bool = False

    def under(self, settings: DeploySettings) -> Compute:
        """The same machine with the image, the GPU's name and the spot nodes of given settings."""
        image = (settings.k8s_gpu_image if self.gpus else "") or settings.k8s_image
        spot = settings.k8s_spot_training if self.gpus > 1 else settings.k8s_spot
        product = settings.k8s_gpu_product if self.gpus else ""
        pool = _LAPTOP_POOLS.get(self.name, self.pool) if settings.executor == "in_process" else self.pool
        return replace(self, image=image, product=product, spot=spot, pool=pool)

    @property
    def op_tags(self) -> dict[str, Any]:
        """Tags that reach the step's pod under ``k8s_job_executor``, and a plain label for everybody else."""
        kubernetes = {
            "container_config": self.container,
            "pod_spec_config": self.pod_spec,
            "job_spec_config": {"backoff_limit": 0},
        }
        return {"facecaption/compute": self.name, KUBERNETES: kubernetes}

    @property
    def container(self) -> dict[str, Any]:
        """The fields of a ``V1Container``."""
        limits = {"memory": f"{self.memory_gib}Gi", "ephemeral-storage": f"{self.disk_gib}Gi"}
        requests = {"cpu": str(self.cores), **limits}
        if self.gpus:
            # Same requests and limits: the pod is the last that a node short of memory evicts.
            requests = limits = {**requests, GPU: str(self.gpus)}
        container: dict[str, Any] = {"resources": {"requests": dict(requests), "limits": dict(limits)}}
        if self.image:
            container["image"] = self.image
        if self.shared_memory_gib:
            container["volume_mounts"] = [{"name": _SHARED_MEMORY, "mount_path": "/dev/shm"}]
        return container

    @property
    def pod_spec(self) -> dict[str, Any]:
        """The fields of a ``V1PodSpec``, without containers."""
        # The pod's own limit rather than its Job's: that one would count the time in which the pod waits for a node.
        pod: dict[str, Any] = {
            "node_selector": {NODE_POOL: self.node_pool},
            "active_deadline_seconds": 60 * self.timeout_minutes,
        }
        if self.product:
            pod["node_selector"][_PRODUCT] = self.product
        tolerated = [key for key, needed in ((GPU, self.gpus), (SPOT, self.spot)) if needed]
        if tolerated:
            pod["tolerations"] = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in tolerated]
        if self.spot:
            # Tolerating them is not yet preferring them: an idle spot node would stay idle beside one on demand.
            on_spot = {"match_expressions": [{"key": SPOT, "operator": "Exists"}]}
            preferred = [{"weight": 100, "preference": on_spot}]
            pod["affinity"] = {"node_affinity": {"preferred_during_scheduling_ignored_during_execution": preferred}}
        if self.stop_seconds:
            pod["termination_grace_period_seconds"] = self.stop_seconds
        if self.shared_memory_gib:
            memory = {"medium": "Memory", "size_limit": f"{self.shared_memory_gib}Gi"}
            pod["volumes"] = [{"name": _SHARED_MEMORY, "empty_dir": memory}]
        return pod


CPU: Final = Compute("cpu", "cpu", cores=2, memory_gib=8, disk_gib=20, timeout_minutes=12 * 60)
DOWNLOAD: Final = Compute(
    "download", "cpu", cores=4, memory_gib=16, disk_gib=40, timeout_minutes=12 * 60, pool="download"
)
ONE_A100: Final = Compute(
    "a100", "a100", cores=8, memory_gib=64, disk_gib=100, timeout_minutes=24 * 60, gpus=1, pool="a100"
)
EIGHT_A100: Final = Compute(
    "a100x8",
    "a100x8",
    cores=64,
    memory_gib=512,
    disk_gib=400,
    timeout_minutes=14 * 24 * 60,
    gpus=8,
    shared_memory_gib=64,
    stop_seconds=240,  # training.launch.STOP_SECONDS and a little
    pool="a100x8",
)


def pools(settings: DeploySettings) -> list[str]:
    """The pools of all machines under given settings."""
    machines = (machine.under(settings) for machine in (CPU, DOWNLOAD, ONE_A100, EIGHT_A100))
    return [machine.pool for machine in machines if machine.pool]
