"""dagster-k8s's executor, with more memory for a step that is tried again."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import dagster as dg
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster_k8s import k8s_job_executor
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.executor import K8sStepHandler
from dagster_k8s.job import UserDefinedDagsterK8sConfig


def memory_growth_executor(growth: float) -> dg.ExecutorDefinition:
    """``k8s_job_executor``, but that a step's second and further tries get ``growth`` times the memory of its first."""

    def create(init_context: dg.InitExecutorContext) -> dg.Executor:
        create_plain = k8s_job_executor.executor_creation_fn
        assert create_plain
        executor = create_plain(init_context)
        executor._step_handler = _MemoryGrowthStepHandler(executor._step_handler, growth)  # type: ignore[attr-defined]
        # As the other executors are configured; k8s_job_executor has no configuration for it.
        executor._step_dependency_config = StepDependencyConfig(require_upstream_step_success=False)  # type: ignore[attr-defined]
        return executor

    schema: Any = k8s_job_executor.config_schema
    return dg.ExecutorDefinition("kubernetes", schema, k8s_job_executor.get_requirements, create)


class _MemoryGrowthStepHandler(K8sStepHandler):
    def __init__(self, plain: K8sStepHandler, growth: float) -> None:
        vars(self).update(vars(plain))  # the client, and all that k8s_job_executor made of its configuration
        self._growth = growth

    def _get_container_context(self, step_handler_context: Any) -> K8sContainerContext:
        """What decides a step's pod."""
        container = super()._get_container_context(step_handler_context)
        state = step_handler_context.execute_step_args.known_state
        if not state or not state.get_retry_state().get_attempt_count(self._get_step_key(step_handler_context)):
            return container
        resources = grown(container.run_k8s_config.container_config.get("resources", {}), self._growth)
        more = UserDefinedDagsterK8sConfig(container_config={"resources": resources})
        return container.merge(K8sContainerContext(run_k8s_config=more))


def grown(resources: Mapping[str, Mapping[str, str]], growth: float) -> dict[str, dict[str, str]]:
    """Requests and limits of a container with ``growth`` times the memory, everything else as it was."""
    return {
        part: {name: _times(value, growth) if name == "memory" else value for name, value in quantities.items()}
        for part, quantities in resources.items()
    }


def _times(quantity: str, factor: float) -> str:
    """A Kubernetes quantity times a factor, in the same unit: ``8Gi`` times 1.5 is ``12Gi``."""
    match = re.fullmatch(r"([0-9.]+)(.*)", str(quantity))
    assert match, quantity  # dagster-k8s and Kubernetes have both let it pass
    return f"{(Decimal(match[1]) * Decimal(str(factor))).normalize():f}{match[2]}"
