"""The deployment on a real API server: applied as it is written, and two shards from the list of pictures to the data set."""

from __future__ import annotations

import dagster as dg
import pytest

from cluster_deployment import ClusterDeployment
from cluster_manifests import NAMESPACE
from cluster_objects import assert_quantities, assert_restricted
from facecaption_assets.machines.compute import GPU, NODE_POOL
from facecaption_assets.partitions import SHARD_ASSETS
from facecaption_ml.storage.store import Store

SHARDS = ("shard-00000", "shard-00001")


def test_the_manifests_are_accepted_and_their_pods_become_ready(deployment: ClusterDeployment) -> None:
    for kind in ("role", "rolebinding", "serviceaccount", "configmap", "secret"):
        assert "facecaption" in deployment.kubectl("get", kind, "-o", "name")
    ready = deployment.kubectl("get", "deployments", "-o", "jsonpath={.items[*].status.readyReplicas}")
    assert ready.split() == ["1", "1", "1"]


def test_the_service_account_may_start_and_watch_pods_and_nothing_more(deployment: ClusterDeployment) -> None:
    def may(verb: str, group: str, resource: str) -> bool:
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": NAMESPACE}
        asked = {"user": f"system:serviceaccount:{NAMESPACE}:facecaption", "resourceAttributes": attributes}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": asked}
        return bool(
            deployment.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]
        )

    assert may("create", "batch", "jobs")
    assert may("delete", "batch", "jobs")
    assert may("list", "", "pods")
    assert may("get", "", "pods/log")
    assert not may("get", "", "secrets")
    assert not may("create", "apps", "deployments")
    assert not may("delete", "", "nodes")


@pytest.fixture(scope="module")
def made(registered: ClusterDeployment) -> str:
    """A run that has made both shards; its id."""
    run = registered.start(*SHARD_ASSETS, first=SHARDS[0], last=SHARDS[1])
    registered.succeed(run)
    return run


def test_two_shards_are_made_by_jobs(registered: ClusterDeployment, made: str, bucket: Store) -> None:
    events = registered.events(made)
    steps = {event.step_key for event in events.of(dg.DagsterEventType.STEP_SUCCESS)}
    assert steps == set(SHARD_ASSETS)
    for asset in SHARD_ASSETS:
        materialized = events.of(dg.DagsterEventType.ASSET_MATERIALIZATION, asset)
        assert {event.partition for event in materialized} == set(SHARDS)
        (pod,) = registered.pods(made, asset)
        assert pod.manifest["metadata"]["ownerReferences"][0]["kind"] == "Job"
    store = Store("s3://data/store", bucket.storage_options)
    assert sum(store.row_count("facecaption_dataset", shard) for shard in SHARDS) > 0


def test_each_step_ran_on_a_node_of_its_pool_with_what_it_asks_for(registered: ClusterDeployment, made: str) -> None:
    for asset in SHARD_ASSETS:
        (pod,) = registered.pods(made, asset)
        selector = pod.manifest["spec"]["nodeSelector"]
        node = registered.kubelet.nodes[pod.node]
        assert selector.items() <= node.labels.items()
        gpus = pod.manifest["spec"]["containers"][0]["resources"]["requests"].get(GPU)
        assert gpus == ("1" if selector[NODE_POOL] == "a100" else None)
        # spot nodes are there, and preferred
        assert "spot" in pod.node


def test_every_pod_would_pass_the_strictest_pod_security(registered: ClusterDeployment, made: str) -> None:
    kubelet = registered.kubelet
    for pod in [*kubelet.pods.values(), *kubelet.ended.values()]:
        assert_restricted(pod.manifest["spec"])
        assert_quantities(pod.manifest["spec"])


def test_logs_of_the_steps_lie_on_s3(made: str, bucket: Store) -> None:
    logs = [key for key in bucket.keys("dagster-logs/") if made in key and key.endswith(".err")]
    assert logs
