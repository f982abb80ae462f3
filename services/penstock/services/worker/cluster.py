"""The API of a Kubernetes cluster, as far as Jobs need it.

With KUBECONFIG or ~/.kube/config where there is one, else as the service account of the pod that
this is. The account may create, get and delete `jobs`, list `pods`, get `pods/log`, and get and create `pods/exec`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from penstock.automations.pools import PoolError
from penstock.events.errors import PenstockError
from penstock.services.worker.jobs import CONTAINER, Object

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse
    from kubernetes_asyncio.client import ApiClient, Configuration

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_USUAL = os.path.expanduser("~/.kube/config")
_TIMEOUT = 20.0  # seconds for an answer
_TAIL = 20  # lines


class ClusterError(PenstockError):
    """The cluster cannot be asked, or refuses; the text says why."""


class Cluster(Protocol):
    """What a place of pods needs of a cluster.  Every method raises ClusterError."""

    async def create(self, manifest: dict[str, Any]) -> None:
        """Make a Job."""

    async def job(self, name: str) -> Object | None:
        """The Job as it is; None where there is none."""

    async def pod(self, job: str) -> Object | None:
        """The pod of a Job."""

    async def execute(self, pod: str, command: Sequence[str]) -> ClientWebSocketResponse:
        """Execute a command beside the first process of a pod; its stdin and outputs are channels (pods.py)."""

    async def output(self, pod: str) -> str:
        """The last lines that the first process of a pod has written."""

    async def delete(self, job: str) -> None:
        """Remove a Job with its pod, at once; one that is gone is no error."""

    async def close(self) -> None:
        """Let go of connections."""


class ApiCluster:
    """A cluster through its API.  namespace: of the cluster; "": the worker's own, else `default`.

    configuration: how to reach it; none: see above.  Raises PoolError where the library for it is not installed.
    """

    def __init__(self, namespace: str = "", configuration: Configuration | None = None) -> None:
        if find_spec("kubernetes_asyncio") is None:
            raise PoolError(
                "a pool of kind kubernetes needs the library kubernetes-asyncio; install penstock[kubernetes]"
            )
        self._namespace = namespace or _own_namespace()
        self._configuration, self._given = configuration, configuration is not None
        self._clients: tuple[ApiClient, ApiClient] | None = None
        self._opening = asyncio.Lock()

    async def create(self, manifest: dict[str, Any]) -> None:
        await self._ask("POST", self._jobs(), body=manifest)

    async def job(self, name: str) -> Object | None:
        return await self._ask("GET", self._jobs(name), absent=True)

    async def pod(self, job: str) -> Object | None:
        query = [("labelSelector", f"job-name={job}")]
        found = await self._ask("GET", f"/api/v1/namespaces/{self._namespace}/pods", query=query)
        items: list[Object] = (found or {}).get("items") or []
        return items[0] if items else None

    async def execute(self, pod: str, command: Sequence[str]) -> ClientWebSocketResponse:
        from aiohttp import ClientError
        from kubernetes_asyncio.client import CoreV1Api

        _, streaming = await self._open()
        api: Any = CoreV1Api(streaming)  # its types know no streams
        streams = {"stdin": True, "stdout": True, "stderr": True, "tty": False}
        try:
            async with asyncio.timeout(_TIMEOUT):
                connecting = await api.connect_get_namespaced_pod_exec(
                    pod, self._namespace, command=list(command), container=CONTAINER, _preload_content=False, **streams
                )
                opened: ClientWebSocketResponse = await connecting
                return opened
        except (ClientError, OSError, TimeoutError) as error:
            raise ClusterError(f"the cluster lets nothing be executed in pod {pod}: {_say(error)}") from None

    async def output(self, pod: str) -> str:
        query = [("tailLines", str(_TAIL)), ("container", CONTAINER)]
        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod}/log"
        return (await self._text("GET", path, query=query) or b"").decode("utf-8", "replace")

    async def delete(self, job: str) -> None:
        options = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
        await self._ask("DELETE", self._jobs(job), body=options, absent=True)

    async def close(self) -> None:
        clients, self._clients = self._clients, None
        for client in clients or ():
            await client.close()

    def _jobs(self, name: str = "") -> str:
        return f"/apis/batch/v1/namespaces/{self._namespace}/jobs" + (f"/{name}" if name else "")

    async def _ask(self, method: str, path: str, **more: Any) -> Object | None:
        found = await self._text(method, path, **more)
        if found is None:
            return None
        known: Object = json.loads(found)
        return known

    async def _text(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: object = None,
        absent: bool = False,
    ) -> bytes | None:
        """The body of the answer; None for what is not there, where that is no error (`absent`)."""
        from aiohttp import ClientError
        from kubernetes_asyncio.client.exceptions import ApiException

        for last in (False, True):
            client, _ = await self._open()
            try:
                async with asyncio.timeout(_TIMEOUT):
                    answer = await client.call_api(
                        path,
                        method,
                        query_params=list(query),
                        header_params={"Accept": "application/json, */*", "Content-Type": "application/json"},
                        body=body,
                        auth_settings=["BearerToken"],
                        _preload_content=False,
                        _return_http_data_only=True,
                    )
                    found: bytes = await answer.read()
            except ApiException as error:
                raise ClusterError(_refusal(method, path, error.status, error.body)) from None
            except (ClientError, OSError, TimeoutError) as error:
                raise ClusterError(f"the cluster does not answer {method} {path}: {_say(error)}") from None
            if answer.status == 404 and absent:
                return None
            if answer.status == 401 and not last and not self._given:
                await self.close()  # its token has run out
                continue
            if answer.status >= 400:
                raise ClusterError(_refusal(method, path, answer.status, found))
            return found
        raise AssertionError("the last round returns or raises")

    async def _open(self) -> tuple[ApiClient, ApiClient]:
        """The client, and one for streams."""
        async with self._opening:
            if self._clients is None:
                # It takes a second or two, in which leases are to be renewed.
                await asyncio.to_thread(import_module, "kubernetes_asyncio.client")
                from kubernetes_asyncio.client import ApiClient
                from kubernetes_asyncio.stream import WsApiClient

                if not self._given:
                    self._configuration = await _configured()
                self._clients = ApiClient(self._configuration), WsApiClient(self._configuration)
            return self._clients


async def _configured() -> Configuration:
    from kubernetes_asyncio import config as logins
    from kubernetes_asyncio.client import Configuration

    config: Any = logins  # some of it has no types

    found = Configuration()
    named = os.environ.get("KUBECONFIG", "")
    try:
        if named or os.path.exists(_USUAL):  # noqa: ASYNC240 -- read by the library in the same way
            await config.load_kube_config(config_file=named or None, client_configuration=found)
        else:
            config.load_incluster_config(client_configuration=found)
    except (config.ConfigException, OSError) as error:
        raise ClusterError(
            f"no cluster is known: {error}; set KUBECONFIG, or run the worker in the cluster with a service account"
        ) from None
    return found


def _own_namespace() -> str:
    with suppress(OSError):
        return (_ACCOUNT / "namespace").read_text().strip() or "default"
    return "default"


def _refusal(method: str, path: str, status: int | None, body: bytes | str | None) -> str:
    """What the API says of itself, where it does."""
    try:
        told = json.loads(body or "")["message"]
    except (ValueError, KeyError, TypeError):
        told = (body.decode("utf-8", "replace") if isinstance(body, bytes) else body or "")[:500].strip()
    return f"the cluster refuses {method} {path} ({status}): {told or 'it does not say why'}"


def _say(error: BaseException) -> str:
    return str(error) or type(error).__name__
