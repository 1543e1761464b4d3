"""The ``FACECAPTION_K8S_*`` settings and their like: who runs the steps of a run, and on which machines."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class DeploySettings(BaseModel):
    """Who runs the steps of a run, and on which machines. A laptop leaves them alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    executor: Literal["in_process", "multiprocess", "kubernetes"] = Field(
        "in_process", description="a run's steps in its own process, in processes beside it, or each in a pod"
    )
    executor_steps: int = Field(0, ge=0, description="steps of one run at once; 0: as many as the executor likes")
    step_retries: int = Field(
        2, ge=0, description="tries again of a step whose pod or process was lost or short of memory; not in_process"
    )

    code_url: str = Field(
        "", description="web address of the repository that assets' pages lead to; '': Dagster+'s own, else local files"
    )
    code_revision: str = Field("", description="branch or commit there; '': Dagster+'s own, else main")

    k8s_image: str = Field("", description="image of every step; '': the code location's own")
    k8s_gpu_image: str = Field("", description="image of steps with GPUs; '': FACECAPTION_K8S_IMAGE")
    k8s_namespace: str = Field("", description="of the steps' pods; '': that of the run's pod")
    k8s_service_account: str = Field("", description="of the steps' pods; '': that of the run's pod")
    k8s_env_secrets: tuple[str, ...] = Field(
        (), description="Kubernetes secrets whose keys are environment variables of every step: NAME,NAME"
    )
    k8s_gpu_product: str = Field(
        "NVIDIA-A100-SXM4-80GB", description="what the label nvidia.com/gpu.product of the GPU nodes says"
    )
    k8s_memory_growth: float = Field(
        2.0,
        ge=1,
        description="what a step's memory is multiplied by when it is tried again, once for all further tries",
    )
    k8s_start_minutes: float = Field(
        120,
        ge=0,
        description="how long a step's pod may wait for a node or its image before it is given up; 0: without end",
    )
    k8s_spot: bool = Field(True, description="let steps on CPUs and on one A100 use spot nodes")
    k8s_spot_training: bool = Field(False, description="let FLIP's trainings use spot nodes too")

    @field_validator("k8s_env_secrets", mode="before")
    @classmethod
    def _read_names(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value
