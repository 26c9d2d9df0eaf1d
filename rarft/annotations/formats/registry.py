"""Formats by name, and their recognition."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rarft.annotations.formats import (
    activitynet_captions,
    charades_sta,
    ms_swift,
    qvhighlights,
    ratsg,
    time_r1,
    timelens,
    timelens_bench,
    tvgbench,
)
from rarft.annotations.formats.record import ReadRecord, Record
from rarft.annotations.formats.records import read_records
from rarft.errors import InputError, input_name
from rarft.plugins import load_function

AUTO = "auto"
RIQ = "riq"
_SAMPLE = 100  # records that recognition reads


@dataclass(frozen=True)
class Format:
    """A format: its name, whether a record has it, and the queries of a record."""

    name: str
    recognize: Callable[[Record], bool]
    read: ReadRecord


_MODULES = {
    "activitynet-captions": activitynet_captions,
    "charades-sta": charades_sta,
    "ms-swift": ms_swift,
    "qvhighlights": qvhighlights,
    "ratsg": ratsg,
    "time-r1": time_r1,
    "timelens": timelens,
    "timelens-bench": timelens_bench,
    "tvgbench": tvgbench,
}
FORMATS = {name: Format(name, module.recognize, module.read) for name, module in _MODULES.items()}


def _is_riq(record: Record) -> bool:
    return isinstance(record.value, dict) and ("GRPO" in record.value or "gt_answer" in record.value)


def detect_format(path: Path) -> str:
    """Return the name of a file's format, which at least half of its first records have.

    Raises:
        InputError: No format or several are recognized.
    """
    records = list(islice(read_records(path), _SAMPLE))
    recognizers = {RIQ: _is_riq, **{name: each.recognize for name, each in FORMATS.items()}}
    counts = {name: sum(map(recognize, records)) for name, recognize in recognizers.items()}
    found = [name for name, count in counts.items() if count]
    if len(found) == 1 and 2 * counts[found[0]] >= len(records):
        return found[0]
    if found:
        raise InputError(f"{path}: may be {' or '.join(found)}; set the format (--from, or -p format)")
    known = ", ".join(FORMATS)
    raise InputError(f"{path}: format not recognized; set it (--from, or -p format) to {known}, or your own function")


def check_is_riq(path: Path, name: str) -> None:
    """Check that a file is not in another format that is recognized.

    Args:
        path: The file.
        name: The user's name of it.

    Raises:
        InputError: It is; the message names the format.
    """
    try:
        found = detect_format(path)
    except InputError:  # what is wrong is reported where the file is read as RIQ
        return
    if found != RIQ:
        raise InputError(
            f"{name}: is in the format {found}, not RIQ; convert it with `rarft convert`, or set -p format={found}"
        )


def check_format(name: str) -> None:
    """Check the name of a format; raise an `InputError` if there is no such format."""
    if name not in (AUTO, RIQ, *FORMATS):
        load_function(name, "format", (AUTO, *FORMATS))


def format_file(name: str) -> str:
    """Return the file of a user's own format; empty for any other format."""
    source = name.rpartition(":")[0]
    return source if source.endswith(".py") else ""


def load_format(name: str, path: Path) -> Format:
    """Return a format by its name, or the recognized format of a file for `auto`.

    Raises:
        InputError: There is no such format, or the file's format is not recognized.
    """
    if name == AUTO:
        name = detect_format(path)
    if name == RIQ:
        raise InputError(f"{path}: is in the RIQ format already; use `rarft validate`")
    if name in FORMATS:
        return FORMATS[name]
    with input_name("--from"):
        function = load_function(name, "format", (AUTO, *FORMATS))
    if not inspect.isgeneratorfunction(function) and len(inspect.signature(function).parameters) != 1:
        raise InputError(f"--from {name}: must take one argument, a record; see CONTRIBUTING.md")
    return Format(name, lambda record: True, function)
