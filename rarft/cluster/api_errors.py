"""Meaning of an error of the Kubernetes API, in one line.

An API server that has just started answers 401, 403 or 404 to calls that it answers a second later, because it has not
loaded accounts, roles or custom resources. The same codes can be final. How long to wait is the caller's decision.
"""

import json
import re
from typing import Any

from kubernetes import client

from rarft.errors import ChildFailedError, InputError

_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}
_NOT_READY = "not yet ready to handle request"  # of admission, with 403
_ROLE = re.compile(r"\bcannot \w+ (resource|path) ")
# Who rejects an object with 400, 403 or 422, and what to do.
_ADMISSION_HINTS = {
    "exceeded quota": "delete other objects, or ask for a larger quota",
    "denied the request": "change what it names",  # an admission webhook
    "violates PodSecurity": "change what it names",
    " is forbidden: ": "change what it names",  # an admission plugin, such as LimitRanger
}
_WEBHOOK_DOWN = "failed calling webhook"


class PermissionDeniedError(InputError):
    """A call that this account may not make; the message names the missing permission."""


class UnknownKindError(InputError):
    """A call about objects of a kind that the API server does not know."""


def _status(error: client.ApiException) -> dict[str, Any]:
    try:
        status = json.loads(error.body)
    except (TypeError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def api_message(error: client.ApiException) -> str:
    """Return the API server's error message as one line."""
    return " ".join(str(_status(error).get("message") or error.body or error.reason).split())


def is_transient(error: client.ApiException) -> bool:
    """Return True if the API server or one of its webhooks is down or busy."""
    return error.status in _TRANSIENT_STATUSES or (error.status == 403 and _NOT_READY in api_message(error))


def is_absent(error: client.ApiException) -> bool:
    """Return True if the named object does not exist; False if the server does not know objects of its kind."""
    return error.status == 404 and "name" in (_status(error).get("details") or {})


def is_denial(error: client.ApiException) -> bool:
    """Return True if the account may not make the call, or the server does not know objects of the kind."""
    if error.status == 403:
        message = api_message(error)
        return bool(_ROLE.search(message)) or not any(part in message for part in _ADMISSION_HINTS)
    return error.status == 401 or (error.status == 404 and not is_absent(error))


def explain(
    action: str, error: client.ApiException, unknown_kind_hint: str = "is its operator installed?"
) -> Exception:
    """Return the error to raise for a call that has failed for good.

    Args:
        action: What the call does, such as `create job rarft`.
        error: Error of the call.
        unknown_kind_hint: What to do if the server does not know objects of the kind.
    """
    message = f"{action}: {api_message(error)}"
    if error.status == 401:
        return PermissionDeniedError(f"{message}; renew the credentials of this account")
    if error.status == 403 and is_denial(error):
        return PermissionDeniedError(f"{message}; grant it with `kubectl apply -k k8s/base`, or use another account")
    if error.status == 404 and not is_absent(error):
        return UnknownKindError(f"{message}; {unknown_kind_hint}")
    if _WEBHOOK_DOWN in message:
        return ChildFailedError(f"{message}; start the webhook's server")
    if error.status >= 500:
        return ChildFailedError(f"{message}; see the API server's log")
    hints = (hint for part, hint in _ADMISSION_HINTS.items() if part in message)
    return InputError(f"{message}; {next(hints, 'check the settings of the job')}")
