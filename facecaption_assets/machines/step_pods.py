"""dagster-k8s's executor for steps whose pods may wait long, run out of memory, or lose their node."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import dagster as dg
from dagster import DagsterEvent
from dagster._core.definitions.metadata import MetadataValue
from dagster._core.events import EngineEventData
from dagster._core.execution.plan.objects import ErrorSource, StepFailureData
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.step_delegating import CheckStepHealthResult, StepDelegatingExecutor, StepHandlerContext
from dagster._utils.error import SerializableErrorInfo
from dagster_k8s import k8s_job_executor
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.executor import K8sStepHandler
from dagster_k8s.job import UserDefinedDagsterK8sConfig
from kubernetes.client import ApiException

from facecaption_assets.machines.pod_faults import Fault, fault_of, minutes_waiting, newest, stopped_by, waits_for

_FINAL: Final = "(not tried again)"


def step_pod_executor(growth: float, start_minutes: float) -> dg.ExecutorDefinition:
    """``k8s_job_executor`` that says what a pod waits for and what ended it.

    A step's second and further tries get ``growth`` times the memory of its first. A pod that has not started after
    ``start_minutes`` (0: no limit) is given up, and its step fails with what it waited for; so does, without another try, one
    that ran longer than it may.
    """

    def create(init_context: dg.InitExecutorContext) -> dg.Executor:
        create_plain = k8s_job_executor.executor_creation_fn
        assert create_plain
        plain = create_plain(init_context)
        executor = _StepPodExecutor.__new__(_StepPodExecutor)
        vars(executor).update(vars(plain))  # all that k8s_job_executor made of its configuration
        executor._step_handler = _StepPodHandler(plain._step_handler, growth, start_minutes)  # type: ignore[attr-defined]
        # As the other executors are configured; k8s_job_executor has no configuration for it.
        executor._step_dependency_config = StepDependencyConfig(require_upstream_step_success=False)
        return executor

    schema: Any = k8s_job_executor.config_schema
    return dg.ExecutorDefinition("kubernetes", schema, k8s_job_executor.get_requirements, create)


class _StepPodExecutor(StepDelegatingExecutor):
    _step_handler: "_StepPodHandler"
    _interrupted: frozenset[str] = frozenset()
    """Steps that failed because they were told to stop, and are tried again all the same."""

    def log_failure_or_retry_event_after_error(
        self, step_context: Any, err_info: SerializableErrorInfo, known_state: Any
    ) -> DagsterEvent:
        if not err_info.message.endswith(_FINAL):
            return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)
        return DagsterEvent.step_failure_event(step_context, StepFailureData(error=err_info, user_failure_data=None))

    def _pop_events(self, instance: dg.DagsterInstance, run_id: str, seen_storage_ids: set[int]) -> list[DagsterEvent]:
        """What the steps have said since the last look, without the failures of steps that were only told to stop.

        Inside an asset's function SIGTERM makes Dagster ask for another try; where it comes between two calls of the function,
        or before the first, Dagster calls the step failed. Whoever stopped the pod knows nothing of that difference.
        """
        found = super()._pop_events(instance, run_id, seen_storage_ids)
        for event in found:
            if event.is_step_up_for_retry and _was_interrupted(event.step_retry_data.error):
                self._step_handler.say_who_stopped(str(event.step_key))
        return [event for event in found if not self._is_tried_again(event)]

    def _is_tried_again(self, event: DagsterEvent) -> bool:
        context = self._step_handler.launched.get(str(event.step_key))
        if context is None or not event.is_step_failure:
            return False
        if event.step_failure_data.error_source != ErrorSource.INTERRUPT:
            return False
        step, known = context.get_step_context(str(event.step_key)), context.execute_step_args.known_state
        policy, tried = step.op_retry_policy, known.get_retry_state().get_attempt_count(step.step.key) if known else 0
        if not policy or step.retry_mode.disabled or tried >= policy.max_retries:
            return False
        self._interrupted |= {step.step.key}
        reason = self._step_handler.say_who_stopped(step.step.key)
        error = SerializableErrorInfo(f"Step {step.step.key} was told to stop: {reason}", [], None)
        super().log_failure_or_retry_event_after_error(step, error, known or KnownExecutionState())
        return True

    def _get_step_handler_context(self, plan_context: Any, steps: Any, active_execution: Any) -> StepHandlerContext:
        # A step counts its own tries before it starts, and would take the failure that is passed over for one of them.
        verifies = self._should_verify_step
        self._should_verify_step = verifies and not self._interrupted.intersection(step.key for step in steps)
        try:
            return super()._get_step_handler_context(plan_context, steps, active_execution)
        finally:
            self._should_verify_step = verifies


class _StepPodHandler(K8sStepHandler):
    def __init__(self, plain: K8sStepHandler, growth: float, start_minutes: float) -> None:
        vars(self).update(vars(plain))  # the client, and all that k8s_job_executor made of its configuration
        self._growth, self._start_minutes = growth, start_minutes
        self._said: dict[str, str] = {}
        self._silent: set[str] = set()
        self.launched: dict[str, StepHandlerContext] = {}
        """By step: with what its last try was started."""

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[DagsterEvent]:
        self.launched[self._get_step_key(step_handler_context)] = step_handler_context
        return super().launch_step(step_handler_context)

    def say_who_stopped(self, step: str) -> str:
        """Why the pod of a step's last try was told to stop, as far as Kubernetes knows by now; the run's log says it too."""
        context = self.launched[step]
        name = self._get_k8s_step_job_name(context)
        namespace = self._get_container_context(context).namespace
        try:
            reason = stopped_by(self._api_client.get_pods_in_job(name, namespace))
        except Exception as error:  # the step is tried again whether the reason is known or not
            reason = f"its pod cannot be read ({type(error).__name__})"
        DagsterEvent.engine_event(
            context.get_step_context(step), f"{step} was told to stop: {reason}", EngineEventData()
        )
        return reason

    def _get_container_context(self, step_handler_context: StepHandlerContext) -> K8sContainerContext:
        """What decides a step's pod."""
        container = super()._get_container_context(step_handler_context)
        state = step_handler_context.execute_step_args.known_state
        if not state or not state.get_retry_state().get_attempt_count(self._get_step_key(step_handler_context)):
            return container
        resources = grown(container.run_k8s_config.container_config.get("resources", {}), self._growth)
        more = UserDefinedDagsterK8sConfig(container_config={"resources": resources})
        return container.merge(K8sContainerContext(run_k8s_config=more))

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        found = super().check_step_health(step_handler_context)
        name = self._get_k8s_step_job_name(step_handler_context)
        namespace = self._get_container_context(step_handler_context).namespace
        pod = newest(self._api_client.get_pods_in_job(name, namespace))
        job = self._job(name, namespace)
        if not found.is_healthy:
            return CheckStepHealthResult.unhealthy(_sentence(f"Kubernetes job {name}", fault_of(job, pod)))
        if job is None or not job.status.succeeded:
            return self._check_start(step_handler_context, name, pod) if pod else found
        # Its last events may be on their way at the first look, not at the second: such a pod took the place of one that was
        # deleted, and left again when it saw that the step had started.
        if name in self._silent:
            return CheckStepHealthResult.unhealthy(f"Kubernetes job {name}: its pod was deleted, or its node was")
        self._silent.add(name)
        return found

    def _check_start(self, context: StepHandlerContext, name: str, pod: Any) -> CheckStepHealthResult:
        """Of a pod that has not ended: say what it waits for, once for each new reason, and give it up after the limit."""
        reason = waits_for(pod)
        if reason and self._said.get(name) != reason:
            self._said[name] = reason
            DagsterEvent.engine_event(
                context.get_step_context(self._get_step_key(context)),
                f"{self._get_step_key(context)} waits: {reason}",
                EngineEventData(
                    {"pod": MetadataValue.text(pod.metadata.name), "waits for": MetadataValue.text(reason)}
                ),
            )
        if not self._start_minutes or minutes_waiting(pod, datetime.now(UTC)) < self._start_minutes:
            return CheckStepHealthResult.healthy()
        list(self.terminate_step(context))
        waited = f"did not start within {self._start_minutes:g} minutes (FACECAPTION_K8S_START_MINUTES)"
        return CheckStepHealthResult.unhealthy(_sentence(f"Kubernetes job {name} {waited}", Fault(reason, final=True)))

    def _job(self, name: str, namespace: str | None) -> Any | None:
        try:
            return self._api_client.batch_api.read_namespaced_job_status(name, namespace)
        except ApiException:
            return None


def _was_interrupted(error: SerializableErrorInfo | None) -> bool:
    """Whether an error is, or was caused by, a signal to stop."""
    while error is not None:
        if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
            return True
        error = error.cause
    return False


def _sentence(subject: str, fault: Fault) -> str:
    return " ".join(part for part in (f"{subject}:", fault.reason, _FINAL if fault.final else "") if part)


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
