"""Checks of parameters against the rules of Kubernetes for names, labels, quantities and the selection of nodes."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from rarft.errors import InputError

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_DNS_LABEL = re.compile(_LABEL)
_KEY_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_IMAGE = re.compile(
    r"([A-Za-z0-9][-A-Za-z0-9.]*(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?"
    r"(@sha256:[0-9a-f]{64})?"
)
_CPU = re.compile(r"\d+(\.\d+)?m?")
_BYTES = re.compile(r"(?P<number>\d+)(?P<unit>[KMGTPE]?)(?P<binary>i?)(?<!\di)")
_COUNT = re.compile(r"\d+")
_MIN_BYTES = 16 * 2**20  # less is a forgotten unit, such as 16 for 16Gi
_MAX_NAME = 253
_POWERS = {letter: power for power, letter in enumerate("KMGTPE", 1)}

# Operators of an expression that selects nodes, with the least and the largest number of values.
_NODE_OPERATORS: dict[str, tuple[int, float]] = {
    "In": (1, math.inf), "NotIn": (1, math.inf), "Exists": (0, 0), "DoesNotExist": (0, 0), "Gt": (1, 1), "Lt": (1, 1)
}  # fmt: skip
_TOLERATION_FIELDS = {"key", "operator", "value", "effect", "tolerationSeconds"}
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def _check_name(value: str) -> None:
    if len(value) > _MAX_NAME or not _SUBDOMAIN.fullmatch(value):
        raise InputError("not a valid Kubernetes name; use lowercase letters, digits, hyphens and dots")


def _check_queue(value: str) -> None:
    _check_name(value)
    if not _LABEL_VALUE.fullmatch(value):
        raise InputError("has more than 63 characters; a job names its queue in a label")


def check_namespace(value: str) -> None:
    """Check the name of a namespace."""
    if not _DNS_LABEL.fullmatch(value):
        raise InputError(f"{value}: not a valid namespace; use at most 63 lowercase letters, digits and hyphens")


def _check_key(value: Any) -> None:
    prefix, slash, name = str(value).rpartition("/")
    is_valid = _KEY_NAME.fullmatch(name) and (not slash or (len(prefix) <= _MAX_NAME and _SUBDOMAIN.fullmatch(prefix)))
    if not isinstance(value, str) or not is_valid:
        raise InputError(f"{value!r} is not a valid label name; use a form such as nvidia.com/gpu.product")


def _check_label_value(value: Any) -> None:
    if not isinstance(value, str):
        raise InputError(f"the value {value!r} is not text; put it in quotes")
    if not _LABEL_VALUE.fullmatch(value):
        raise InputError(f"{value!r} is not a valid label value; use at most 63 letters, digits, hyphens and dots")


def _check_accelerator(value: str) -> None:
    if "/" not in value:
        raise InputError("not a resource name; use a form such as nvidia.com/gpu")
    _check_key(value)


def _check_cpu(value: str) -> None:
    if not _CPU.fullmatch(value) or not float(value.rstrip("m")):
        raise InputError("not a valid Kubernetes quantity of CPUs; use a form such as 4, 0.5 or 500m")


def _check_bytes(value: str) -> None:
    if (parts := _BYTES.fullmatch(value)) is None:
        raise InputError("not a valid Kubernetes quantity of bytes; use a form such as 16Gi")
    base = 1024 if parts["binary"] else 1000
    if int(parts["number"]) * base ** _POWERS.get(parts["unit"], 0) < _MIN_BYTES:
        raise InputError(f"less than {_MIN_BYTES // 2**20} MiB; use a unit, such as 16Gi")


def _check_count(value: str) -> None:
    if not _COUNT.fullmatch(value):
        raise InputError("not a valid Kubernetes quantity of devices; use a number such as 8")


def _check_image(value: str) -> None:
    if not _IMAGE.fullmatch(value):
        raise InputError("not an image; use a form such as registry.example.com/team/rarft-train:0.1.0")


def _check_node_selector(value: Mapping[str, Any]) -> None:
    for key, label in value.items():
        _check_key(key)
        _check_label_value(label)


def _check_fields(value: Any, known: set[str], owner: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{value!r} is not a JSON object with the fields of {owner}")
    if unknown := sorted(set(value) - known):
        raise InputError(f"unknown field {unknown[0]}; {owner} has {', '.join(sorted(known))}")
    return value


def _check_toleration(value: Any) -> None:
    fields = _check_fields(value, _TOLERATION_FIELDS, "a toleration")
    operator, effect = fields.get("operator", "Equal"), fields.get("effect", "")
    if operator not in ("Exists", "Equal"):
        raise InputError(f"operator {operator!r}: must be Exists or Equal")
    if effect and effect not in _EFFECTS:
        raise InputError(f"effect {effect!r}: must be {', '.join(_EFFECTS[:-1])} or {_EFFECTS[-1]}")
    if fields.get("key"):
        _check_key(fields["key"])
    elif operator != "Exists":
        raise InputError("a toleration without a key must have the operator Exists")
    if operator == "Exists" and fields.get("value"):
        raise InputError("a toleration with the operator Exists has no value; remove it")
    _check_label_value(fields.get("value", ""))
    seconds = fields.get("tolerationSeconds")
    if seconds is not None and (not isinstance(seconds, int) or effect != "NoExecute"):
        raise InputError("tolerationSeconds must be an integer, and requires the effect NoExecute")


def _check_tolerations(value: list[Any]) -> None:
    for toleration in value:
        _check_toleration(toleration)


def _check_term(value: Any) -> None:
    """Check a term that selects nodes."""
    fields = _check_fields(value, {"matchExpressions", "matchFields"}, "a term")
    for expression in [*fields.get("matchExpressions", []), *fields.get("matchFields", [])]:
        parts = _check_fields(expression, {"key", "operator", "values"}, "an expression")
        _check_key(parts.get("key", ""))
        operator, values = parts.get("operator"), parts.get("values", [])
        if operator not in _NODE_OPERATORS:
            raise InputError(f"operator {operator!r}: must be one of {', '.join(_NODE_OPERATORS)}")
        minimum, maximum = _NODE_OPERATORS[operator]
        if not minimum <= len(values) <= maximum:
            raise InputError(f"operator {operator}: cannot have {len(values)} values")
        for each in values:
            _check_label_value(each)
        if operator in ("Gt", "Lt") and not re.fullmatch(r"-?\d+", values[0]):
            raise InputError(f"operator {operator}: the value {values[0]!r} must be an integer")


def _check_affinity(value: Mapping[str, Any]) -> None:
    # Kubeflow silently drops all other fields.
    _check_fields(value, {_REQUIRED, _PREFERRED}, "a node affinity")
    if _REQUIRED in value:
        required = _check_fields(value[_REQUIRED], {"nodeSelectorTerms"}, _REQUIRED)
        if not required.get("nodeSelectorTerms"):
            raise InputError(f"{_REQUIRED}: requires nodeSelectorTerms")
        for term in required["nodeSelectorTerms"]:
            _check_term(term)
    for preferred in value.get(_PREFERRED, []):
        fields = _check_fields(preferred, {"weight", "preference"}, "a preference")
        weight = fields.get("weight")
        if not isinstance(weight, int) or not 1 <= weight <= 100:
            raise InputError(f"weight {weight!r}: must be between 1 and 100")
        _check_term(fields.get("preference", {}))


_CHECKS: dict[str, Callable[[Any], None]] = {
    **dict.fromkeys(("store_secret", "hub_secret", "tracking_secret", "pvc_name", "priority_class"), _check_name),
    **dict.fromkeys(("validate_image", "steps_image", "train_image"), _check_image),
    **dict.fromkeys(("cpu", "train_cpu"), _check_cpu),
    **dict.fromkeys(("memory", "train_memory", "train_disk"), _check_bytes),
    "queue": _check_queue,
    "accelerator": _check_accelerator,
    "accelerators": _check_count,
    "node_selector": _check_node_selector,
    "tolerations": _check_tolerations,
    "affinity": _check_affinity,
}
_MAY_BE_EMPTY = {"queue", "priority_class"}


def check_kubernetes_values(values: Mapping[str, Any]) -> None:
    """Check the parameters that become part of Kubernetes objects.

    Raises:
        InputError: Kubernetes would reject a value; the message names the parameter.
    """
    for name, check in _CHECKS.items():
        if name not in values or (name in _MAY_BE_EMPTY and not values[name]):
            continue
        try:
            check(values[name])
        except InputError as error:
            given = f"={values[name]}" if isinstance(values[name], str) else ""
            raise InputError(f"-p {name}{given}: {error}") from error
