"""One deployment for all tests here: on a control plane of the tests' own, or on the cluster of KUBECONFIG."""

from __future__ import annotations

import compileall
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from cluster_deployment import ClusterDeployment
from cluster_manifests import NAMESPACE, image
from cluster_nodes import nodes
from control_plane import ControlPlane, control_plane, given_plane
from control_plane_build import ControlPlanePrograms, programs
from facecaption_ml.storage.store import Store
from kubernetes_api import Api
from own_network import enter_own_network
from pod_process import REPOSITORY
from process_kubelet import Kubelet, running
from seaweedfs import seaweedfs, seaweedfs_program
from servers import PictureServer, Postgres, picture_server, postgres_programs, s3_options

ROWS = 6
SHARDS_LISTED = 8
SHARDS = ("shard-00000", "shard-00001")
"""Those that become a data set; each of the others is one test's, since what was downloaded once is not asked for again."""


@pytest.fixture(scope="session", autouse=True)
def network() -> None:
    """On a plane of our own all servers are on a loopback address of their own."""
    if os.geteuid():
        pytest.skip("containers need root: mounts, and users of their own")
    if not os.environ.get("KUBECONFIG"):
        enter_own_network()


@pytest.fixture(scope="session")
def tools() -> ControlPlanePrograms:
    found = programs()
    assert not found.missing, f"make test-cluster builds what is missing: {', '.join(found.missing)}"
    return found


@pytest.fixture(scope="session")
def plane(
    network: None, tools: ControlPlanePrograms, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    given = os.environ.get("KUBECONFIG")
    if given:
        yield given_plane(Path(given))
        return
    with control_plane(tools, tmp_path_factory.mktemp("plane")) as own:
        yield own


@pytest.fixture(scope="session")
def pod_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("facecaption_ml", "facecaption_assets"):  # no container may write what it has compiled
        compileall.compile_dir(REPOSITORY / package, quiet=1)
    folder = tmp_path_factory.mktemp("pods")
    for place in (folder, *folder.parents):  # containers have users of their own
        if place.stat().st_uid == os.geteuid() and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o011)
    return folder


@pytest.fixture(scope="session")
def kubelet(plane: ControlPlane, pod_folder: Path) -> Iterator[Kubelet]:
    made = Kubelet(plane, Api(plane.client()), pod_folder, NAMESPACE)
    for node in nodes():
        made.add(node)
    with running(made):
        yield made


@pytest.fixture(scope="session")
def postgres(network: None) -> Iterator[Postgres]:
    found = postgres_programs()
    assert found, "PostgreSQL's initdb and pg_ctl are not installed"
    server = Postgres(found)
    yield server
    server.close()


@pytest.fixture(scope="session")
def s3(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    program = seaweedfs_program()
    assert program, "the SeaweedFS binary is not installed"
    with seaweedfs(program, tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="session")
def pictures(network: None) -> Iterator[PictureServer]:
    from facecaption_ml.decoding import encode_jpeg
    from facecaption_ml.sample.scenes import draw_scene

    with picture_server(encode_jpeg(draw_scene(3).image)) as server:
        yield server


@pytest.fixture(scope="session")
def bucket(s3: dict[str, str], pictures: PictureServer) -> Store:
    """With the list of pictures in it."""
    store = Store("s3://data", s3_options(s3))
    numbers = range(ROWS * SHARDS_LISTED)
    rows = [f"{pictures.url(f'shard{n // ROWS:02d}-{n % ROWS}')},face {n}" for n in numbers]
    store.write_bytes("source/list.csv", ("URL,TEXT\n" + "\n".join(rows) + "\n").encode())
    return store


@pytest.fixture(scope="session")
def instance(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """The deployment's, to read from."""
    folder = tmp_path_factory.mktemp("reader")
    database = {**_database(postgres), "password": postgres.password}
    config = {"storage": {"postgres": {"postgres_db": database}}, "telemetry": {"enabled": False}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with contextlib.closing(contextlib.ExitStack()) as stack:
        yield stack.enter_context(dg.DagsterInstance.from_config(str(folder)))


@pytest.fixture(scope="session")
def deployment(
    kubelet: Kubelet, tools: ControlPlanePrograms, postgres: Postgres, s3: dict[str, str], bucket: Store,
    instance: dg.DagsterInstance,
) -> ClusterDeployment:  # fmt: skip
    found = ClusterDeployment(tools["kubectl"], kubelet, _settings(s3), instance)
    secrets = {
        "FACECAPTION_S3_SECRET_ACCESS_KEY": s3["AWS_SECRET_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": s3["AWS_SECRET_ACCESS_KEY"],
    }
    found.install(_database(postgres), postgres.password, secrets)
    return found


@pytest.fixture(scope="session")
def registered(deployment: ClusterDeployment) -> ClusterDeployment:
    """With the shards of the list registered, and the attribute predictor, by a run."""
    deployment.succeed(deployment.start("source_manifest", "attribute_model"))
    return deployment


@pytest.fixture(scope="session")
def made_before(registered: ClusterDeployment) -> ClusterDeployment:
    """With the attributes of the shards made, whoever needed them first."""
    from facecaption_assets.partitions import SHARD_ASSETS

    there = registered.instance.get_materialized_partitions(dg.AssetKey("facecaption_dataset"))
    if not set(SHARDS) <= set(there):
        registered.succeed(registered.start(*SHARD_ASSETS, first=SHARDS[0], last=SHARDS[1]))
    return registered


@pytest.fixture(autouse=True)
def _what_the_kubelet_saw(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "kubelet" in request.fixturenames:
        kubelet: Kubelet = request.getfixturevalue("kubelet")
        for fault in kubelet.faults:
            logging.getLogger("kubelet").warning(fault)
        kubelet.faults.clear()


def _database(postgres: Postgres) -> dict[str, Any]:
    given = postgres.environment
    return {
        "hostname": given["DAGSTER_POSTGRES_HOST"],
        "port": int(given["DAGSTER_POSTGRES_PORT"]),
        "username": given["DAGSTER_POSTGRES_USER"],
        "db_name": given["DAGSTER_POSTGRES_DB"],
        "scheme": "postgresql+psycopg2",
    }


def _settings(s3: Mapping[str, str]) -> dict[str, str]:
    """Of the profile ``production``, but as small as can be."""
    return {
        "FACECAPTION_STORE": "s3://data/store",
        "FACECAPTION_SOURCE": "s3://data/source/list.csv",
        "FACECAPTION_REMOVAL_LIST": "",
        "FACECAPTION_ATTRIBUTE_DATA": "",
        "FACECAPTION_ATTRIBUTE_WEIGHTS": "bundled",
        "FACECAPTION_USER_AGENT_CONTACT": "",
        "FACECAPTION_K8S_GPU_IMAGE": image().replace("cpu", "cuda"),
        "FACECAPTION_S3_ENDPOINT": s3["endpoint"],
        "FACECAPTION_S3_REGION": s3["AWS_REGION"],
        "FACECAPTION_S3_ACCESS_KEY_ID": s3["AWS_ACCESS_KEY_ID"],
        "FACECAPTION_AUTOMATION": "false",
        "FACECAPTION_ALLOW_PRIVATE_ADDRESSES": "true",
        "FACECAPTION_READ_TIMEOUT_S": "120",
        "FACECAPTION_TOTAL_TIMEOUT_S": "600",
        "FACECAPTION_SHARD_SIZE": str(ROWS),
        "FACECAPTION_SHARDS_PER_RUN": "2",
        "FACECAPTION_MIN_LABELS": "2",
        "FACECAPTION_LLM_BACKEND": "none",
        "FACECAPTION_DEVICE": "cpu",
        "FACECAPTION_THREADS": "1",
        "AWS_REGION": s3["AWS_REGION"],
        "AWS_ACCESS_KEY_ID": s3["AWS_ACCESS_KEY_ID"],
        "DAGSTER_LOGS_BUCKET": "data",
        "DAGSTER_LOGS_ENDPOINT_URL": s3["endpoint"],
    }
