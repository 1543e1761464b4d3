"""Who runs the steps of a run: its own process, processes beside it, or a Kubernetes pod for each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final, cast

import dagster as dg
import sqlalchemy as sa

from facecaption_assets.machines.compute import pools
from facecaption_assets.settings.deploy import DeploySettings

# A step of which some shards have failed has failed, but not before it has given what it has to the steps after it.
_CONTINUE_PAST_FAILED_SHARDS: Final[dict[str, Any]] = {
    "step_dependency_config": {"require_upstream_step_success": False}
}


def build_executor(settings: DeploySettings) -> dg.ExecutorDefinition:
    """The executor of every job, by ``FACECAPTION_EXECUTOR``; it gives the pools their limits before the first step."""
    plain = _plain_executor(settings)
    create = plain.executor_creation_fn
    assert create

    def create_with_pools(init_context: dg.InitExecutorContext) -> dg.Executor:
        register_pools(init_context.instance, settings)
        return create(init_context)

    return dg.ExecutorDefinition(
        name=plain.name,
        config_schema=cast(Any, plain.config_schema),  # which the class itself gives, and takes
        requirements=plain._requirements_fn,  # what create needs of a job, which has no public name
        executor_creation_fn=create_with_pools,
        description=plain.description,
    )


def register_pools(instance: dg.DagsterInstance, settings: DeploySettings) -> None:
    """Give every pool without a limit the instance's default, whoever else does so at the same moment.

    Dagster does it when the first step asks for a place: of two runs that ask at once, one fails by the other's row. So all
    pools get theirs before, and what the other has written counts.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits or instance.global_op_concurrency_default_limit is None:
        return
    for pool in pools(settings):
        if pool in storage.get_concurrency_keys():
            continue
        try:
            storage.initialize_concurrency_limit_to_default(pool)
        except (sa.exc.IntegrityError, sa.exc.InternalError):
            if pool not in storage.get_concurrency_keys():
                raise


def _plain_executor(settings: DeploySettings) -> dg.ExecutorDefinition:
    if settings.executor == "kubernetes":
        from facecaption_assets.machines.step_pods import step_pod_executor

        plain = step_pod_executor(settings.k8s_memory_growth, settings.k8s_start_minutes)
        return plain.configured(kubernetes_config(settings), name="kubernetes")
    if settings.executor == "multiprocess":
        config = {"max_concurrent": settings.executor_steps, **_CONTINUE_PAST_FAILED_SHARDS}
        return dg.multiprocess_executor.configured(config, name="multiprocess")
    # A run is a process of its own already; one more for each step would load torch anew each time.
    return dg.in_process_executor.configured(_CONTINUE_PAST_FAILED_SHARDS, name="in_process")


@contextlib.contextmanager
def continue_past_failed_shards() -> Iterator[None]:
    """Within the block, ``execute_in_process`` runs steps in the order of ``build_executor``'s executors.

    Dagster puts an executor of its own in the place of a job's there, and offers no way to configure it.
    """
    from dagster._core.definitions.executor_definition import execute_in_process_executor as own

    plain, here = own._executor_creation_fn, dg.in_process_executor.executor_creation_fn
    assert here

    def create(init_context: dg.InitExecutorContext) -> dg.Executor:
        config = {"retries": {"enabled": {}}, **_CONTINUE_PAST_FAILED_SHARDS}
        return here(init_context._replace(executor_config=config))

    own._executor_creation_fn = create
    try:
        yield
    finally:
        own._executor_creation_fn = plain


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
    # A run's pod that dies hard takes its steps' pods along: the run that is started in its place would work beside them.
    given["enable_owner_references"] = True
    # The record of a pod that has ended stays a day, for `kubectl logs`; the logs themselves are on S3.
    given["step_k8s_config"] = {"job_spec_config": {"ttl_seconds_after_finished": 24 * 3600}}
    return given
