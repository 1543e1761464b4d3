"""Where weights come from, each way with the real thing: package, file, HTTP server."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from facecaption_ml.faces import WeightsError, load_weights
from facecaption_ml.faces import weights as weights_module
from facecaption_ml.faces.network import facexlib_network


def test_bundled_network_computes_what_its_onnx_graph_computes() -> None:
    """All 56 convolutions at once: ONNX's own slow evaluator over the packaged graph against the loaded model."""
    graph = onnx.load_model_from_string(weights_module._bundled_onnx())
    picture = np.random.default_rng(5).uniform(-120, 130, (1, 3, 64, 96)).astype(np.float32)
    expected = dict(
        zip(["loc", "conf", "landmarks"], ReferenceEvaluator(graph).run(None, {"input": picture}), strict=True)
    )
    model = facexlib_network(load_weights(), "mobile0.25")
    with torch.inference_mode():
        found = dict(zip(["loc", "conf", "landmarks"], model(torch.from_numpy(picture)), strict=True))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.models
def test_loading_leaves_the_package_itself_alone() -> None:
    """Importing ``retinaface`` would import onnxruntime; facexlib's tracker would import numba and filterpy."""
    code = (
        "import sys; from facecaption_ml.faces import FaceDetector; FaceDetector.load();"
        "print([m for m in ('retinaface', 'onnxruntime', 'numba', 'filterpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_users_file(user_weights: Path) -> None:
    import hashlib

    weights = load_weights(user_weights)
    assert weights.version == hashlib.sha256(user_weights.read_bytes()).hexdigest()[:12]
    assert not any(name.startswith("module.") for name in weights.state)
    facexlib_network(weights, "mobile0.25")


def test_unusable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"missing\.pth is not a file"):
        load_weights(tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError, match=r"text\.pth is not a PyTorch state dict") as caught:
        load_weights(tmp_path / "text.pth")
    assert "\n" not in str(caught.value)
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"empty\.pth"):
        load_weights(tmp_path / "empty.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth is not a state dict of tensors"):
        load_weights(tmp_path / "list.pth")


class _RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code in a weights file was run')",)


def test_a_file_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"weight": _RunsCode()}, tmp_path / "hostile.pth")
    with pytest.raises(WeightsError, match=r"hostile\.pth is not a PyTorch state dict"):
        load_weights(tmp_path / "hostile.pth")


def test_bundled_weights_are_for_one_network() -> None:
    with pytest.raises(WeightsError, match=r"bundled ones are those of mobile0\.25; give resnet50"):
        load_weights("bundled", "resnet50")


@pytest.fixture
def weights_url(user_weights: Path) -> Iterator[str]:
    data = user_weights.read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/detector.pth" else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/detector.pth"
    server.shutdown()
    server.server_close()


def test_download_through_facexlib(
    weights_url: str, user_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_module, "DOWNLOAD_URLS", {"mobile0.25": weights_url})
    folder = tmp_path / "models"
    weights = load_weights("download", weights_folder=folder)
    assert (folder / "detector.pth").read_bytes() == user_weights.read_bytes()
    assert weights.version == load_weights(user_weights).version
    # The second time the file is there and nothing is fetched.
    monkeypatch.setattr(weights_module, "DOWNLOAD_URLS", {"mobile0.25": "http://127.0.0.1:9/detector.pth"})
    assert load_weights("download", weights_folder=folder).version == weights.version


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/detector.pth", "http://no-such-host.invalid/detector.pth"])
def test_failed_download_says_what_to_give_instead(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "DOWNLOAD_URLS", {"mobile0.25": url})
    with pytest.raises(WeightsError, match=r"give .bundled. or a local \.pth file") as caught:
        load_weights("download", weights_folder=tmp_path)
    assert "\n" not in str(caught.value)
    assert url in str(caught.value)
    assert list(tmp_path.glob("*.pth")) == []
