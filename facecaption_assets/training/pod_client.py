"""``PipesK8sClient`` with deadlines: a pod that never starts, is deleted, or does not end is an error soon enough.

Dagster's own client polls for a day where a pod disappears before it has a container, ends trainings that take longer than a
day, and where it deletes a pod that is gone already, that error hides the first one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError
from dagster._core.pipes.client import PipesParams
from dagster_aws.pipes import PipesS3MessageReader
from dagster_k8s import PipesK8sClient
from dagster_k8s.client import DagsterK8sError, DagsterKubernetesClient
from kubernetes.client import ApiException  # type: ignore[import-untyped]

from facecaption_assets.training.pod import MESSAGES, s3_client
from facecaption_ml.storage.objects import S3

if TYPE_CHECKING:
    from facecaption_assets.training.pod import TrainingPods


class PodLostError(RuntimeError):
    """A pod failed, was deleted or took too long; the message says which in one line."""


def run_pod(
    pods: TrainingPods, context: dg.AssetExecutionContext, folder: str, spec: Mapping[str, Any], meta: Mapping[str, Any]
) -> None:
    """Start the pod, wait until it has ended well, and delete it. Raises PodLostError."""
    settings = pods.settings
    bucket, _, root = settings.store_root.removeprefix(S3).partition("/")
    prefix = "/".join(part for part in (root.strip("/"), folder, MESSAGES) if part)
    client = _PatientClient(
        message_reader=_MessagesInFolder(bucket, prefix, s3_client(settings.s3_endpoint, settings.s3_region)),
        load_incluster_config=not pods.kubeconfig or None,
        kubeconfig_file=pods.kubeconfig or None,
        poll_interval=pods.poll_s,
    )
    client.start_s = pods.start_s
    try:
        client.run(
            context=context,
            namespace=settings.k8s_namespace or None,
            base_pod_meta=meta,
            base_pod_spec=spec,
            # a little later than the cluster's own end of it, which leaves a reason behind
            pod_wait_timeout=pods.deadline_s + 60 * 10,
        )
    except (PodLostError, DagsterK8sError, DagsterPipesExecutionError, ApiException) as error:
        raise PodLostError(_line(error)) from None


class _MessagesInFolder(PipesS3MessageReader):
    """Messages under a prefix of our own, where Dagster's would lie at the top of the bucket."""

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:
        super().__init__(bucket=bucket, client=client, interval=5)
        self._prefix = prefix

    @contextmanager
    def get_params(self) -> Iterator[PipesParams]:
        with super().get_params() as params:
            yield {**params, "key_prefix": self._prefix}


class _PatientClient(PipesK8sClient):
    """Waits for a container for ``start_s``, and no longer than the pod is there."""

    start_s: float = 0.0

    @contextmanager
    def consume_pod_logs(
        self,
        context: Any,
        client: DagsterKubernetesClient,
        namespace: str,
        pod_name: str,
        enable_multi_container_logs: bool = False,
        ignore_containers: set[str] | None = None,
    ) -> Iterator[None]:
        """Called between the pod's creation and the wait for its end."""
        context.log.info(f"training in the pod {pod_name} of the namespace {namespace}")
        started = time.monotonic()
        while not self._has_container(client, namespace, pod_name):
            if time.monotonic() - started > self.start_s:
                raise PodLostError(
                    f"its pod {pod_name} found no node in {self.start_s / 60:g} minutes "
                    "(FACECAPTION_K8S_POD_START_MINUTES): `kubectl describe pod` says why, within an hour"
                )
            time.sleep(self.poll_interval)
        yield

    @staticmethod
    def _has_container(client: DagsterKubernetesClient, namespace: str, pod_name: str) -> bool:
        found = client.core_api.list_namespaced_pod(namespace, field_selector=f"metadata.name={pod_name}").items
        if not found:
            raise PodLostError(f"its pod {pod_name} was deleted before it started")
        if found[0].status.phase == "Failed":  # evicted before it had a container
            raise PodLostError(f"its pod {pod_name} failed: {found[0].status.reason or 'for no stated reason'}")
        return bool(found[0].status.container_statuses)


def _line(error: BaseException) -> str:
    """The first error's first line: deleting a pod that is gone raises another one over it."""
    first = error.__context__
    if isinstance(error, ApiException):
        if isinstance(first, PodLostError | DagsterK8sError):
            return _line(first)
        return f"Kubernetes answered {error.status} {error.reason}"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
