"""Who runs the steps of a run: its own process, processes beside it, or a Kubernetes pod for each."""

from __future__ import annotations

from typing import Any

import dagster as dg

from facecaption_assets.settings.deploy import DeploySettings


def build_executor(settings: DeploySettings) -> dg.ExecutorDefinition:
    """The executor of every job, by ``FACECAPTION_EXECUTOR``."""
    if settings.executor == "kubernetes":
        from facecaption_assets.machines.memory_growth import memory_growth_executor

        return memory_growth_executor(settings.k8s_memory_growth).configured(
            kubernetes_config(settings), name="kubernetes"
        )
    if settings.executor == "multiprocess":
        return dg.multiprocess_executor.configured({"max_concurrent": settings.executor_steps}, name="multiprocess")
    # A run is a process of its own already; one more for each step would load torch anew each time.
    return dg.in_process_executor


def kubernetes_config(settings: DeploySettings) -> dict[str, Any]:
    """The configuration of ``k8s_job_executor``. What a setting leaves open comes from the run's launcher and code location."""
    optional = {
        "job_image": settings.k8s_image,
        "job_namespace": settings.k8s_namespace,
        "service_account_name": settings.k8s_service_account,
        "env_secrets": list(settings.k8s_env_secrets),
        "max_concurrent": settings.executor_steps,
    }
    given: dict[str, Any] = {name: value for name, value in optional.items() if value}
    # The record of a pod that has ended stays a day, for `kubectl logs`; the logs themselves are on S3.
    given["step_k8s_config"] = {"job_spec_config": {"ttl_seconds_after_finished": 24 * 3600}}
    return given
