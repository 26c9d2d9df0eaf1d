"""Kubernetes API calls that wait for an API server that is away."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from rarft.cluster.api_errors import api_message, explain, is_denial, is_transient
from rarft.errors import InputError

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

_RETRY_TIMEOUT_S = 300.0  # covers an upgrade of the API server
_INITIAL_DELAY_S, _MAX_DELAY_S = 1.0, 20.0
_STOP_INTERVAL_S = 0.2  # between two checks whether to stop, during a delay
_REMINDER_INTERVAL_S = 600.0  # between two lines about a call that is retried
_REQUEST_TIMEOUT_S = (10, 60)  # to connect, and to read the response
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # exists in a pod


def connect(context: str | None = None) -> client.ApiClient:
    """Return a client for the cluster that this pod runs in, or that the kubeconfig names.

    Raises:
        InputError: No cluster is configured.
    """
    configuration = client.Configuration()
    configuration.retries = False  # they are retried here
    try:
        if context is None and _NAMESPACE_FILE.exists():
            config.load_incluster_config(configuration)  # reads a rotated token within a minute
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


def _network_reason(error: Exception) -> str:
    """Return the cause of a network error, without the library's objects."""
    return str(getattr(error, "reason", error)).rpartition(": ")[2]


def call_with_retry(
    action: str,
    call: Callable[..., _T],
    *arguments: Any,
    timeout_s: float = _RETRY_TIMEOUT_S,
    denial_timeout_s: float = 0.0,
    should_retry: Callable[[], bool] = lambda: True,
    request_timeout_s: tuple[float, float] = _REQUEST_TIMEOUT_S,
    log: Callable[..., None] = logger.warning,
    **options: Any,
) -> _T:
    """Make an API call; retry it with exponential backoff while the API server is away, and log that once.

    Args:
        action: What the call does, for messages, such as `create job rarft`.
        call: Method of the Kubernetes client.
        arguments: Positional arguments of the call.
        timeout_s: Seconds to wait for an API server or a webhook that is down.
        denial_timeout_s: Seconds after which a denial is believed.
        should_retry: Checked before each retry; if False, the error is raised.
        request_timeout_s: Seconds to connect, and to read the response.
        log: Logger's method for the line about a call that is retried.
        options: Keyword arguments of the call.

    Raises:
        PermissionDeniedError: This account may not make the call.
        InputError: The server cannot be reached.
        ApiException: The server rejects the call for another reason, or an error outlasts the timeout.
    """
    delay, start = _INITIAL_DELAY_S, time.monotonic()
    denied_since = logged_at = None
    while True:
        failure: Exception
        try:
            return call(*arguments, _request_timeout=request_timeout_s, **options)
        except client.ApiException as error:
            now, is_access_denied = time.monotonic(), is_denial(error) and not is_transient(error)
            reason = f"{error.status} {api_message(error)}"
            failure = explain(action, error) if is_access_denied and error.status in (401, 403) else error
            limit = denial_timeout_s if is_access_denied else timeout_s if is_transient(error) else 0.0
        except (HTTPError, OSError) as error:
            now, is_access_denied, reason, limit = time.monotonic(), False, _network_reason(error), timeout_s
            failure = InputError(f"{action}: cannot reach the cluster ({reason}); check the network")
        denied_since = (denied_since or now) if is_access_denied else None
        if now + delay - (denied_since or start) > limit or not should_retry():
            raise failure
        if logged_at is None or now - logged_at > _REMINDER_INTERVAL_S:
            log("%s: %s; retrying for up to %.0f s", action, reason, limit)
            logged_at = now
        retry_at = now + delay
        while (remaining := retry_at - time.monotonic()) > 0 and should_retry():
            time.sleep(min(remaining, _STOP_INTERVAL_S))
        delay = min(2 * delay, _MAX_DELAY_S)
