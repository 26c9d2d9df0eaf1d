"""Kubeflow Pipelines API of an endpoint: its health, runs and logs."""

import json
import re
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from http.client import HTTPException
from typing import Any

import kfp_server_api

from rarft.environment import read_variable
from rarft.errors import InputError, input_name

TOKEN_ENV = "KFP_TOKEN"
_TIMEOUT_S = 20.0
_REQUEST_TIMEOUT_S = (10, 30)  # to connect, and to read the response
_PAGE_SIZE, _MAX_PAGES = 100, 20
_LOG_URL = "{endpoint}/apis/v1alpha1/runs/{run}/nodes/{pod}/log"


def open_endpoint(url: str) -> "Endpoint":
    """Return the API at the URL of `--endpoint`, with the token of `KFP_TOKEN`."""
    token = read_variable(TOKEN_ENV, prefix="Bearer ")
    if not url.startswith(("http://", "https://")):
        raise InputError(f"--endpoint {url}: not a URL; use a form such as http://localhost:8888")
    return Endpoint(url.rstrip("/"), token)


class Endpoint:
    """The API at a URL."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url, self.token = url, token

    def check(self) -> None:
        """Check that there is a Kubeflow Pipelines API.

        Raises:
            InputError: There is none, or it cannot be reached.
        """
        with input_name("--endpoint"):
            self._check()

    def _check(self) -> None:
        hint = "is it the Kubeflow Pipelines API, and not a login page?"
        try:
            with self._open(f"{self.url}/apis/v2beta1/healthz") as response:
                body = response.read()
        except urllib.error.HTTPError as error:
            hint = f"set {TOKEN_ENV}" if error.code in (401, 403) else hint
            raise InputError(f"{self.url}: returned {error.code} {error.reason}; {hint}") from error
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise InputError(f"{self.url}: cannot be reached ({reason}); check the URL and the network") from error
        try:
            is_healthy = isinstance(json.loads(body), dict)
        except ValueError:
            is_healthy = False
        if not is_healthy:
            raise InputError(f"{self.url}: unexpected health-check response; {hint}")

    def run_page(self, run_id: str) -> str:
        """Return the URL of a run's page, without a user name and a password."""
        url = re.sub(r"(?<=//)[^/]*@", "", self.url)
        return f"{url}/#/runs/details/{run_id}"

    def get_run(self, run_id: str) -> Any:
        """Return a run.

        Raises:
            kfp_server_api.ApiException: The server rejects the call.
            urllib3.exceptions.HTTPError, OSError: The server cannot be reached.
        """
        return kfp_server_api.RunServiceApi(self._client).run_service_get_run(
            run_id, _request_timeout=_REQUEST_TIMEOUT_S
        )

    def runs(self, namespace: str | None) -> Iterator[Any]:
        """Yield runs, the newest first; raises like `get_run`."""
        service, token = kfp_server_api.RunServiceApi(self._client), ""
        for _ in range(_MAX_PAGES):
            page = service.run_service_list_runs(
                page_size=_PAGE_SIZE,
                page_token=token,
                sort_by="created_at desc",
                _request_timeout=_REQUEST_TIMEOUT_S,
                **({"namespace": namespace} if namespace else {}),
            )
            yield from page.runs or []
            token = page.next_page_token
            if not token:
                return

    def experiment_namespace(self, experiment_id: str) -> str | None:
        """Return the namespace of an experiment, which only a multi-user server states; raises like `get_run`."""
        call = kfp_server_api.ExperimentServiceApi(self._client).experiment_service_get_experiment
        namespace: str | None = call(experiment_id, _request_timeout=_REQUEST_TIMEOUT_S).namespace
        return namespace or None

    def log_lines(self, run_id: str, pod: str, count: int) -> list[str]:
        """Return the last lines of a pod's log, which the server may have archived.

        Raises:
            InputError: It cannot be read.
        """
        try:
            with self._open(_LOG_URL.format(endpoint=self.url, run=run_id, pod=pod)) as response:
                return [line.decode("utf-8", "replace").rstrip() for line in deque(response, count)]
        except (OSError, HTTPException) as error:
            raise InputError(f"read log of {pod}: {getattr(error, 'reason', error)}") from error

    def _open(self, url: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S)

    @cached_property
    def _client(self) -> Any:
        configuration = kfp_server_api.Configuration(host=self.url)
        configuration.retries = False  # the caller decides
        if self.token:
            configuration.api_key["authorization"] = self.token
            configuration.api_key_prefix["authorization"] = "Bearer"
        return kfp_server_api.ApiClient(configuration)
