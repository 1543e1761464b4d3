"""The verbs of Kubernetes' API with plain JSON, as a kubelet and tests need them."""

from __future__ import annotations

from typing import Any

from kubernetes.client import ApiClient


class Api:
    """Paths as the API has them, answers as dictionaries. Raises kubernetes.client.ApiException."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def get(self, path: str, **query: str) -> dict[str, Any]:
        found: dict[str, Any] = self._call("GET", path, query=list(query.items()))
        return found

    def post(self, path: str, body: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._call("POST", path, body)
        return found

    def delete(self, path: str, body: Any = None) -> dict[str, Any]:
        found: dict[str, Any] = self._call("DELETE", path, body)
        return found

    def patch(self, path: str, body: Any) -> dict[str, Any]:
        """By strategic merge, as kubelets and kubectl do it."""
        found: dict[str, Any] = self._call("PATCH", path, body, "application/strategic-merge-patch+json")
        return found

    def _call(self, verb: str, path: str, body: Any = None, kind: str = "application/json", query: Any = ()) -> Any:
        return self._client.call_api(
            path, verb, query_params=list(query), header_params={"Accept": "application/json", "Content-Type": kind},
            body=body, auth_settings=["BearerToken"], response_types_map=dict.fromkeys((200, 201, 202), "object"),
            _return_http_data_only=True, _request_timeout=30,
        )  # fmt: skip
