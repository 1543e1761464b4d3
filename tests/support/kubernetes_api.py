"""The verbs of Kubernetes' API with plain JSON, as a kubelet and tests need them."""

from __future__ import annotations

import json
from typing import Any

from kubernetes.client import ApiClient


class Api:
    """Paths as the API has them, answers as dictionaries. Raises kubernetes.client.ApiException."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def get(self, path: str, **query: str) -> dict[str, Any]:
        return self._call("GET", path, query=list(query.items()))

    def post(self, path: str, body: Any) -> dict[str, Any]:
        return self._call("POST", path, body)

    def delete(self, path: str, body: Any = None) -> dict[str, Any]:
        return self._call("DELETE", path, body)

    def patch(self, path: str, body: Any) -> dict[str, Any]:
        """By strategic merge, as kubelets and kubectl do it."""
        return self._call("PATCH", path, body, "application/strategic-merge-patch+json")

    def _call(
        self, verb: str, path: str, body: Any = None, kind: str = "application/json", query: Any = ()
    ) -> dict[str, Any]:
        answer = self._client.call_api(
            path, verb, query_params=list(query), header_params={"Accept": "application/json", "Content-Type": kind},
            body=body, auth_settings=["BearerToken"], _preload_content=False, _request_timeout=30,
        )[0]  # fmt: skip
        found: dict[str, Any] = json.loads(answer.data)
        return found
