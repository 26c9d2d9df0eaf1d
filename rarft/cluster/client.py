"""Kubernetes API calls that retry transient errors and report permanent ones in one line."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from rarft.errors import InputError

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

_RETRY_TIMEOUT_S = 300.0  # covers an upgrade of the API server
_INITIAL_DELAY_S, _MAX_DELAY_S = 1.0, 20.0
_REQUEST_TIMEOUT_S = (10, 60)  # to connect, and to read the response
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # exists in a pod
_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}


class PermissionDeniedError(InputError):
    """A call that this account may not make; the message names the missing permission."""


def connect(context: str | None = None) -> client.ApiClient:
    """Return a client for the cluster that this pod runs in, or that the kubeconfig names.

    Raises:
        InputError: No cluster is configured.
    """
    configuration = client.Configuration()
    try:
        if context is None and _NAMESPACE_FILE.exists():
            config.load_incluster_config(configuration)
        else:
            config.load_kube_config(context=context, client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"no cluster configured ({reason}); set KUBECONFIG, or run in the cluster") from error
    return client.ApiClient(configuration)


def current_namespace() -> str:
    """Return the namespace of this pod or of the kubeconfig's context; `default` if neither exists."""
    if _NAMESPACE_FILE.exists():
        return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    try:
        _, active = config.list_kube_config_contexts()
    except (config.ConfigException, OSError):
        return "default"
    return str(active["context"].get("namespace", "default"))


def api_message(error: client.ApiException) -> str:
    """Return the API server's error message as one line."""
    try:
        text = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        text = error.body or error.reason
    return " ".join(str(text).split())


def permission_error(action: str, error: client.ApiException) -> PermissionDeniedError:
    """Return the error to raise for a 401 or 403 response."""
    return PermissionDeniedError(
        f"{action}: {api_message(error)}; grant it with `kubectl apply -k k8s/base`, or use another account"
    )


def call_with_retry(
    action: str,
    call: Callable[..., _T],
    *arguments: Any,
    timeout_s: float = _RETRY_TIMEOUT_S,
    should_retry: Callable[[], bool] = lambda: True,
    **options: Any,
) -> _T:
    """Make an API call; retry transient errors with exponential backoff and log each of them.

    Args:
        action: What the call does, for messages, such as `create job rarft`.
        call: Method of the Kubernetes client.
        arguments: Positional arguments of the call.
        timeout_s: Seconds after which an error is raised instead of retried.
        should_retry: Checked before each retry; if False, the error is raised.
        options: Keyword arguments of the call.

    Raises:
        PermissionDeniedError: This account may not make the call.
        InputError: The server cannot be reached.
        ApiException: The server rejects the call for another reason, or an error outlasts the timeout.
    """
    delay, deadline = _INITIAL_DELAY_S, time.monotonic() + timeout_s
    while True:
        try:
            return call(*arguments, _request_timeout=_REQUEST_TIMEOUT_S, **options)
        except client.ApiException as error:
            if error.status in (401, 403):
                raise permission_error(action, error) from error
            if error.status not in _TRANSIENT_STATUSES or time.monotonic() > deadline or not should_retry():
                raise
            reason = f"{error.status} {api_message(error)}"
        except (HTTPError, OSError) as error:
            if time.monotonic() > deadline or not should_retry():
                raise InputError(f"{action}: cannot reach the cluster ({error}); check the network") from error
            reason = str(error)
        logger.warning("%s: %s; retrying in %.0f s", action, reason, delay)
        time.sleep(delay)
        delay = min(2 * delay, _MAX_DELAY_S)
