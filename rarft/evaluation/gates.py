"""Gates: what a checkpoint must reach to be shipped, such as `relevance.f1_avg>=0.70` or `ra_iou.mean>=base-0.02`."""

import operator
import re
from dataclasses import dataclass
from typing import Any

from rarft.errors import InputError
from rarft.evaluation.metrics import compute_metrics, value_at

_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_NUMBER = r"[+-]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_GATE = re.compile(rf"\s*(?P<path>[^<>=]+?)\s*(?P<how>>=|<=|>|<)\s*(?P<base>base)?\s*(?P<number>{_NUMBER})?\s*")
# Names below these depend on the data: of a group, whose metrics are those of the whole; of a label; of a reward.
_GROUPS = re.compile(r"by_(?:difficulty|category|length|position)\.(?P<name>.+?)\.(?P<path>[a-z_]+(?:\.[\w./]+)?)")
_OPEN = re.compile(
    r"rewards\.\w+|rt_iou\.labels\.[\w/]+\.(?:precision|recall|f1)|judge\.\w+|unusable_rows(?:_of_base)?"
)


@dataclass(frozen=True)
class Gate:
    """One condition.

    Attributes:
        text: as the user wrote it.
        path: of the metric.
        how: the comparison.
        relative_to_base: whether `number` is added to the base's metric.
        number: what the metric is held against.
    """

    text: str
    path: str
    how: str
    relative_to_base: bool
    number: float

    def fault(self, metrics: dict[str, Any]) -> str | None:
        """Why the metrics do not pass; None where they do."""
        value = _value(metrics, self.path)
        bound: float | None = self.number
        if self.relative_to_base:
            held = _value(metrics["base"], self.path)
            bound = None if held is None else held + self.number
        if value is None or bound is None:
            return f"{self.text}: the metric is not known here"
        if _COMPARE[self.how](value, bound):
            return None
        return f"{self.text}: it is {value:.4f}" + (f", the bound {bound:.4f}" if self.relative_to_base else "")


def _value(metrics: dict[str, Any], path: str) -> float | None:
    """The metric; None where these data have no such group."""
    tree: Any = metrics
    if (group := _GROUPS.fullmatch(path)) is not None:
        tree, path = metrics.get(path.partition(".")[0], {}).get(group["name"]), group["path"]
    try:
        return value_at(tree, path) if tree is not None else None
    except KeyError:
        return None


def _is_known(path: str, known: dict[str, Any]) -> bool:
    group = _GROUPS.fullmatch(path)
    path = group["path"] if group else path
    try:
        value_at(known, path)
    except KeyError:
        return _OPEN.fullmatch(path) is not None
    return True


def parse_gates(text: str) -> list[str]:
    """The gates of a text, one a line, each looked at.

    Raises:
        InputError: one of them is none, or names no metric.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    known = compute_metrics([])
    for line in lines:
        parse_gate(line, with_base=True, known=known)
    return lines


def parse_gate(text: str, with_base: bool, known: dict[str, Any]) -> Gate:
    """Read a gate.

    Args:
        text: of the user.
        with_base: whether a base is evaluated, too.
        known: metrics of any predictions, for their names.

    Raises:
        InputError: it is none, names no metric, or needs a base that is not there.
    """
    match = _GATE.fullmatch(text)
    if match is None or not (match["base"] or match["number"]):
        raise InputError(f"--gate {text!r}: write METRIC>=NUMBER or METRIC>=base, such as relevance.f1_avg>=0.70")
    if match["base"] and not with_base:
        raise InputError(f"--gate {text!r}: needs a base to compare with; give --base, or --base-predictions")
    if not _is_known(match["path"], known):
        raise InputError(f"--gate {text!r}: no metric {match['path']}; docs/evaluation.md names them")
    number = (match["number"] or "0").replace(" ", "")
    if match["base"] and match["number"] and number[0] not in "+-":
        raise InputError(f"--gate {text!r}: write base+NUMBER or base-NUMBER")
    return Gate(text.strip(), match["path"], match["how"], bool(match["base"]), float(number))
