"""The deployment on a cluster, as a person uses it: applied, runs started over GraphQL, and read from the event log."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dagster as dg

from cluster_manifests import NAMESPACE, WEB_PORT, dagster_objects, filled, secret, settings_map
from kubernetes_api import Api
from process_kubelet import Kubelet
from running_pod import RunningPod
from servers import graphql, wait_until

_JOB: Final = {
    "repositoryLocationName": "facecaption",
    "repositoryName": "__repository__",
    "pipelineName": "__ASSET_JOB",
}
_RANGE: Final = "dagster/asset_partition_range_"
PATIENCE: Final = 3600
"""Seconds that anything may take: a pod imports Dagster in five, of a core that it may have to share with many."""


@dataclass
class Events:
    """Of a run, oldest first."""

    entries: list[dg.EventLogEntry]

    def of(self, kind: dg.DagsterEventType, step: str | None = None) -> list[dg.DagsterEvent]:
        found = [entry.dagster_event for entry in self.entries if entry.dagster_event]
        return [event for event in found if event.event_type == kind and step in (None, event.step_key)]

    @property
    def messages(self) -> list[str]:
        return [entry.dagster_event.message or "" for entry in self.entries if entry.dagster_event]

    def retries(self, step: str) -> list[str]:
        """What stands in the line of each retry of a step."""
        found = self.of(dg.DagsterEventType.STEP_UP_FOR_RETRY, step)
        return [str(event.event_specific_data) for event in found]


class ClusterDeployment:
    """``kubectl``: the program; ``settings``: of deploy/eks/settings.yaml, as the tests need them."""

    def __init__(
        self, kubectl: str, kubelet: Kubelet, settings: Mapping[str, str], instance: dg.DagsterInstance
    ) -> None:
        self._kubectl, self.kubelet, self.instance = kubectl, kubelet, instance
        self._settings = dict(settings)
        self.api: Api = kubelet.api

    # Installing

    def install(self, database: Mapping[str, Any], password: str, secrets: Mapping[str, str]) -> None:
        for manifest in filled("service-account.yaml"):
            self.apply(manifest)
        self.settings()
        self.apply(secret("facecaption-postgres", **{"postgresql-password": password}))
        self.apply(secret("facecaption-secrets", **secrets))
        for manifest in dagster_objects(database):
            self.apply(manifest)
        for name in ("facecaption", "dagster-dagster-webserver", "dagster-daemon"):
            self.kubectl("rollout", "status", f"deployment/{name}", f"--timeout={PATIENCE}s")
        wait_until("the webserver with its code location", self._loaded, PATIENCE)

    def settings(self, **changes: str) -> None:
        """Of pods that start from now on."""
        self._settings |= changes
        self.apply(settings_map(self._settings))

    def apply(self, manifest: Mapping[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", given=json.dumps(manifest))

    def kubectl(self, *words: str, given: str = "") -> str:
        command = [self._kubectl, f"--kubeconfig={self.kubelet.plane.kubeconfig}", f"--namespace={NAMESPACE}", *words]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=PATIENCE + 60)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _loaded(self) -> bool:
        found = self.graphql("{workspaceOrError{... on Workspace{locationEntries{locationOrLoadError{__typename}}}}}")
        entries = found["workspaceOrError"]["locationEntries"]
        return [entry["locationOrLoadError"]["__typename"] for entry in entries] == ["RepositoryLocation"]

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        return graphql(WEB_PORT, query, **variables)

    # Runs

    def start(self, *assets: str, first: str = "", last: str = "", partition: str = "") -> str:
        """Start a run; its id."""
        tags = [{"key": f"{_RANGE}start", "value": first}, {"key": f"{_RANGE}end", "value": last}] if first else []
        tags += [{"key": "dagster/partition", "value": partition}] if partition else []
        selector = {**_JOB, "assetSelection": [{"path": [asset]} for asset in assets]}
        found = self.graphql(
            """mutation($p: ExecutionParams!){launchPipelineExecution(executionParams: $p){
            __typename ... on LaunchRunSuccess{run{runId}} ... on InvalidSubsetError{message} ... on PythonError{message}}}""",
            p={"selector": selector, "runConfigData": {}, "mode": "default", "executionMetadata": {"tags": tags}},
        )["launchPipelineExecution"]
        assert found["__typename"] == "LaunchRunSuccess", found
        return str(found["run"]["runId"])

    def end_of(self, run: str) -> str:
        """The status of a run that has ended."""
        return str(wait_until(f"the end of run {run}", lambda: self._ended(run), PATIENCE, every=1))

    def succeed(self, run: str) -> Events:
        status = self.end_of(run)
        events = self.events(run)
        failures = events.of(dg.DagsterEventType.STEP_FAILURE)
        reasons = [str(event.event_specific_data)[:3000] for event in failures]
        assert status == "SUCCESS", "\n".join([*events.messages[-30:], *reasons])
        return events

    def _ended(self, run: str) -> str | None:
        found = self.instance.get_run_by_id(run)
        assert found
        return found.status.value if found.is_finished else None

    def events(self, run: str) -> Events:
        return Events(self.instance.all_logs(run))

    def wait_for(self, run: str, what: str, found: Callable[[Events], Any]) -> Any:
        def look() -> Any:
            ended = self._ended(run)
            seen = found(self.events(run))
            assert seen or not ended, f"run {run} has ended: {ended}"
            return seen

        return wait_until(what, look, PATIENCE, every=0.5)

    def cancel(self, run: str) -> None:
        found = self.graphql(
            "mutation($id: String!){terminateRun(runId: $id){__typename ... on PythonError{message}}}", id=run
        )["terminateRun"]
        assert found["__typename"] == "TerminateRunSuccess", found

    # Pods

    def pods(self, run: str, step: str | None = None) -> list[RunningPod]:
        """Of a run that the kubelet has or had, in the order of their starts: of a step, or (None) the run's own."""
        every = [*self.kubelet.pods.values(), *self.kubelet.ended.values()]
        labels = [(pod, pod.manifest["metadata"]["labels"]) for pod in every]
        mine = [pod for pod, label in labels if label.get("dagster/run-id") == run and label.get("dagster/op") == step]
        return sorted(mine, key=lambda pod: pod.began)

    def at_work(self, run: str, step: str | None = None) -> RunningPod:
        """The newest pod of a step, once it runs."""

        def look() -> RunningPod | None:
            found = self.pods(run, step)
            return found[-1] if found and not found[-1].has_ended else None

        pod: RunningPod = wait_until(f"a pod of {step or 'the run'}", look, PATIENCE, every=0.2)
        return pod

    def delete(self, pod: RunningPod, seconds: int | None = None) -> None:
        """``kubectl delete pod``; ``seconds``: in place of its grace period."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        options |= {} if seconds is None else {"gracePeriodSeconds": seconds}
        self.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod.name}", options)

    def cordon(self, names: Sequence[str], cordoned: bool = True) -> None:
        for name in names:
            self.kubectl("cordon" if cordoned else "uncordon", name)

    def logs(self, folder: Path) -> str:
        """Of every container, the newest first."""
        files = sorted(folder.glob("*/*/log"), key=lambda path: -path.stat().st_mtime)
        return "\n".join(f"== {path.parent.parent.name}\n{path.read_text(errors='replace')[-2000:]}" for path in files)
