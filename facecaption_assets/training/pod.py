"""FLIP's training in a pod with eight A100, which the step starts through Dagster Pipes and waits for.

The step itself needs no GPU. Settings of the training, its messages and the line that says why it failed pass through the
store, under ``flip_pods/``; what the training makes lies where a training of the step's own processes leaves it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from facecaption_assets.machines.compute import EIGHT_A100
from facecaption_assets.settings import PREFIX, Settings, SettingsError
from facecaption_assets.training.launch import failure
from facecaption_assets.training.process import CONFIG

if TYPE_CHECKING:
    from facecaption_ml.flip.training.config import TrainingConfig

FAILURE: Final = "failure.txt"
"""The line of the process that failed first, beside the training's settings."""
MESSAGES: Final = "messages"
_FOLDER: Final = "flip_pods"
# Of the step's own environment; what holds a credential comes from a secret or the service account instead.
_HANDED_ON: Final = (
    "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE",
    "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT", "NCCL_DEBUG",
)  # fmt: skip
# Neither the cluster's autoscaler nor Karpenter moves such a pod to another node to save money.
_STAY: Final = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}


def training_launcher(settings: Settings) -> dict[str, Any]:
    """The resource that trains FLIP, where it is not the usual one: ``FACECAPTION_FLIP_LAUNCHER=kubernetes``.

    Raises SettingsError where a pod would have no image, or could not reach the store.
    """
    if settings.flip_launcher == "subprocess":
        return {}
    if not EIGHT_A100.under(settings).image:
        raise SettingsError(f"{PREFIX}K8S_GPU_IMAGE is not set: {PREFIX}FLIP_LAUNCHER=kubernetes needs the pod's image")
    if not settings.store_root.startswith("s3://"):
        raise SettingsError(f"{PREFIX}STORE is {settings.store_root!r}: a pod needs s3://bucket/prefix")
    return {"training_processes": TrainingPods(settings)}


@dataclass(frozen=True)
class TrainingPods:
    """Trains in pods. ``kubeconfig`` is a file for who stands outside the cluster; '': the pod that this runs in.

    ``deadline_s`` is how long a pod may run, ``start_s`` how long it may wait for a node; what does not end by then is ended.
    """

    settings: Settings
    kubeconfig: str = ""
    poll_s: float = 10.0
    deadline_s: float = 60.0 * EIGHT_A100.timeout_minutes

    @property
    def start_s(self) -> float:
        return 60.0 * self.settings.k8s_pod_start_minutes

    def train(self, context: dg.AssetExecutionContext, config: TrainingConfig, processes: int) -> dict[str, Any]:
        """Train, and return the ``config.json`` of the checkpoint that the pod left in the store.

        Raises dg.Failure with the line of the process that failed first, or with what became of the pod.
        """
        from facecaption_assets.training.pod_client import PodLostError, run_pod

        store = config.open_store()
        folder = f"{_FOLDER}/{context.run.run_id}/{config.prefix}"
        store.write_bytes(f"{folder}/{CONFIG}", config.to_json().encode())
        try:
            run_pod(self, context, folder, self.pod_spec(folder, processes), pod_labels(context.run.run_id))
        except PodLostError as error:
            line = store.read_bytes(f"{folder}/{FAILURE}").decode() if store.exists(f"{folder}/{FAILURE}") else None
            raise dg.Failure(description=failure(config, line, str(error))) from None
        finally:
            for key in store.keys(folder):
                store.delete(key)
        found: dict[str, Any] = json.loads(store.read_bytes(f"{config.prefix}/config.json"))
        return found

    def pod_spec(self, folder: str, processes: int) -> dict[str, Any]:
        """The fields of a ``V1PodSpec``: the machine of ``EIGHT_A100``, and one container that trains."""
        machine, settings = EIGHT_A100.under(self.settings), self.settings
        command = ["python", "-m", "facecaption_assets.training.pod_process", folder, str(processes)]
        container = {
            **machine.container,
            "name": "training",
            "command": command,
            "env": [{"name": name, "value": value} for name, value in pod_environment(settings).items()],
            "env_from": [{"secret_ref": {"name": name}} for name in settings.k8s_env_secrets],
        }
        spec = {
            **machine.pod_spec,
            "containers": [container],
            "restart_policy": "Never",
            "active_deadline_seconds": int(self.deadline_s),
        }
        return spec | ({"service_account_name": settings.k8s_service_account} if settings.k8s_service_account else {})


def pod_labels(run_id: str) -> dict[str, Any]:
    """Metadata of the pod: how to find it by its run, and that it should be left where it is."""
    return {"labels": {"app.kubernetes.io/component": "training", "dagster/run-id": run_id}, "annotations": dict(_STAY)}


def pod_environment(settings: Settings) -> Mapping[str, str]:
    """How the pod reaches the store and models. Credentials come from its service account or from Kubernetes secrets."""
    given = {
        "PROFILE": settings.profile,
        "STORE": settings.store_root,
        "S3_ENDPOINT": settings.s3_endpoint,
        "S3_REGION": settings.s3_region,
        "S3_ENCRYPTION": settings.s3_encryption,
        "S3_KMS_KEY": settings.s3_kms_key,
    }
    handed_on = {name: os.environ[name] for name in _HANDED_ON if os.environ.get(name)}
    return handed_on | {PREFIX + name: value for name, value in given.items() if value}


def work_folder(settings: Settings, folder: str) -> Path:
    """Where a pod keeps what its processes log."""
    return settings.home / "training" / folder


def s3_client(endpoint: str, region: str) -> Any:
    """boto3's client; what is empty comes from the AWS environment."""
    import boto3

    return boto3.client("s3", endpoint_url=endpoint or None, region_name=region or None)
