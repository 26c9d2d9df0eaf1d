"""Calls to the cluster's API: what passes is waited out, what stays is told in one line."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config
from urllib3.exceptions import HTTPError

from rarft.errors import InputError

_T = TypeVar("_T")
PATIENCE = 300.0  # seconds that an API server may be away, as while it is upgraded
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 20.0
_TIMEOUT = (10, 60)  # seconds to connect, and for an answer
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")  # in a pod
_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}


class DeniedError(InputError):
    """This account may not make a call; the message names the missing right."""


def connect(context: str | None = None) -> client.ApiClient:
    """A client of the cluster that this pod runs in, or that the kubeconfig names.

    Raises:
        InputError: there is neither.
    """
    configuration = client.Configuration()
    try:
        if context is None and _NAMESPACE.exists():
            config.load_incluster_config(configuration)
        else:
            config.load_kube_config(context=context, client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"no cluster is known here ({reason}); set KUBECONFIG, or run in the cluster") from error
    return client.ApiClient(configuration)


def current_namespace() -> str:
    """The namespace that this pod runs in, or that the kubeconfig's context names; else `default`."""
    if _NAMESPACE.exists():
        return _NAMESPACE.read_text(encoding="utf-8").strip()
    try:
        _, active = config.list_kube_config_contexts()
    except (config.ConfigException, OSError):
        return "default"
    return str(active["context"].get("namespace", "default"))


def message_of(error: client.ApiException) -> str:
    """What the API server says of an error, on one line."""
    try:
        text = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        text = error.body or error.reason
    return " ".join(str(text).split())


def denied(what: str, error: client.ApiException) -> DeniedError:
    """The error that a refused call is."""
    return DeniedError(f"{what}: {message_of(error)}; grant it by `kubectl apply -k k8s/base`, or use another account")


def call_with_retry(
    what: str,
    call: Callable[..., _T],
    *arguments: Any,
    patience: float = PATIENCE,
    keep_on: Callable[[], bool] = lambda: True,
    **options: Any,
) -> _T:
    """Make a call; errors that pass are waited out, and each is told.

    Args:
        what: what the call does, for messages.
        call: of the kubernetes client.
        arguments: its arguments.
        patience: seconds that the server may be away.
        keep_on: asked before each further try; without it the error is raised.
        options: more of the call's arguments.

    Raises:
        DeniedError: this account may not do it.
        InputError: the server does not answer.
        ApiException: the server refuses it for another reason, or does not come back.
    """
    wait, ends = _FIRST_WAIT, time.monotonic() + patience
    while True:
        try:
            return call(*arguments, _request_timeout=_TIMEOUT, **options)
        except client.ApiException as error:
            if error.status in (401, 403):
                raise denied(what, error) from error
            if error.status not in _TRANSIENT_STATUSES or time.monotonic() > ends or not keep_on():
                raise
            reason = f"{error.status} {message_of(error)}"
        except (HTTPError, OSError) as error:
            if time.monotonic() > ends or not keep_on():
                raise InputError(f"{what}: the cluster does not answer ({error}); check the network") from error
            reason = str(error)
        print(f"{what}: {reason}; trying again in {wait:.0f} s", flush=True)
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
