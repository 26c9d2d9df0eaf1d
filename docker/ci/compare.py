"""Hold two metrics.json against each other: every number equal to 1e-6, and the same figures in both."""

import json
import sys
from pathlib import Path


def numbers(value, name=""):
    """(name, number) of everything in nested JSON."""
    if isinstance(value, dict):
        for key, join_path in value.items():
            yield from numbers(join_path, f"{name}.{key}")
    elif isinstance(value, list):
        for index, join_path in enumerate(value):
            yield from numbers(join_path, f"{name}[{index}]")
    elif isinstance(value, int | float):
        yield name.removeprefix("."), value


one, other = (dict(numbers(json.loads(Path(path).read_text()))) for path in sys.argv[1:])
if one.keys() != other.keys():
    raise SystemExit(f"not the same figures: {sorted(one.keys() ^ other.keys())[:5]}")
apart = {name: (value, other[name]) for name, value in one.items() if abs(value - other[name]) > 1e-6}
largest = max(abs(value - other[name]) for name, value in one.items())
print(f"{len(one)} figures, {len(apart)} apart by more than 1e-6, largest difference {largest:g}")
if apart:
    raise SystemExit(f"they differ: {dict(list(apart.items())[:5])}")
