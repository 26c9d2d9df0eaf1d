"""Gates: conditions on a checkpoint's metrics, such as `relevance.f1_avg>=0.70` or `ra_iou.mean>=base-0.02`."""

import operator
import re
from dataclasses import dataclass
from typing import Any

from rarft.errors import InputError
from rarft.evaluation.metrics import PredictionTable, metrics_of, value_at

_OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_NUMBER = r"[+-]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_GATE = re.compile(rf"\s*(?P<path>[^<>=]+?)\s*(?P<operator>>=|<=|>|<)\s*(?P<base>base)?\s*(?P<number>{_NUMBER})?\s*")
# These names depend on the data: metrics of a group, of a label, of a reward.
_GROUPS = re.compile(
    r"(?P<grouping>by_(?:difficulty|category|length|position))\.(?P<name>.+?)\.(?P<path>[a-z_]+(?:\.[\w./]+)?)"
)
_DATA_DEPENDENT = re.compile(
    r"rewards\.\w+|rt_iou\.labels\.[\w/]+\.(?:precision|recall|f1)|judge\.\w+|unusable_rows(?:_of_base)?"
)


@dataclass(frozen=True)
class Gate:
    """A condition on one metric.

    Attributes:
        text: The gate as the user wrote it.
        path: Dotted path of the metric.
        operator: Comparison operator.
        relative_to_base: Whether `number` is an offset from the metric of the reference.
        number: Bound or offset.
    """

    text: str
    path: str
    operator: str
    relative_to_base: bool
    number: float

    def failure_reason(self, metrics: dict[str, Any]) -> str | None:
        """Return why the metrics fail the gate; None if they pass."""
        value = _value(metrics, self.path)
        bound: float | None = self.number
        if self.relative_to_base:
            base = _value(metrics["base"], self.path)
            bound = None if base is None else base + self.number
        if value is None or bound is None:
            return f"{self.text}: metric not available"
        if _OPERATORS[self.operator](value, bound):
            return None
        return f"{self.text}: value {value:.4f}" + (f", bound {bound:.4f}" if self.relative_to_base else "")


def _value(metrics: dict[str, Any], path: str) -> float | None:
    """Return the metric; None if the data have no such group."""
    try:
        if (group := _GROUPS.fullmatch(path)) is not None:
            metrics, path = metrics[group["grouping"]][group["name"]], group["path"]
        value: float | None = value_at(metrics, path)
    except KeyError:
        return None
    return value


def _is_metric(path: str) -> bool:
    group = _GROUPS.fullmatch(path)
    path = group["path"] if group else path
    try:
        value_at(metrics_of(PredictionTable([])), path)
        return True
    except KeyError:
        return _DATA_DEPENDENT.fullmatch(path) is not None


def parse_gates(text: str) -> list[str]:
    """Return the gates of a text with one gate per line, after parsing each."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        parse_gate(line)
    return lines


def parse_gate(text: str, with_base: bool = True) -> Gate:
    """Parse a gate; `with_base` if there is a reference to compare with.

    Raises:
        InputError: The text is not a gate, names an unknown metric, or needs a reference that is missing.
    """
    match = _GATE.fullmatch(text)
    if match is None or not (match["base"] or match["number"]):
        raise InputError(f"{text!r}: not a gate; write METRIC>=NUMBER or METRIC>=base, such as relevance.f1_avg>=0.70")
    if match["base"] and not with_base:
        raise InputError(f"{text!r}: needs a base to compare with; pass --compare")
    if not _is_metric(match["path"]):
        raise InputError(f"{text!r}: unknown metric {match['path']}; see docs/evaluation.md for the names")
    number = (match["number"] or "0").replace(" ", "")
    if match["base"] and match["number"] and number[0] not in "+-":
        raise InputError(f"{text!r}: not a gate; write base+NUMBER or base-NUMBER")
    return Gate(text.strip(), match["path"], match["operator"], bool(match["base"]), float(number))
