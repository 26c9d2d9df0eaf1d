"""Compare two metrics.json: the same metrics, and equal values to 1e-6."""

import json
import sys
from pathlib import Path

TOLERANCE = 1e-6


def numbers(value, name=""):
    """Yield (name, number) for all numbers in nested JSON."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from numbers(child, f"{name}.{key}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from numbers(child, f"{name}[{index}]")
    elif isinstance(value, int | float):
        yield name.removeprefix("."), value


first, second = (dict(numbers(json.loads(Path(path).read_text()))) for path in sys.argv[1:])
if first.keys() != second.keys():
    raise SystemExit(f"different metrics: {sorted(first.keys() ^ second.keys())[:5]}")
differences = {name: abs(value - second[name]) for name, value in first.items()}
print(f"{len(first)} metrics, largest difference {max(differences.values()):g}")
if wrong := {name: (first[name], second[name]) for name, value in differences.items() if value > TOLERANCE}:
    raise SystemExit(f"{len(wrong)} metrics differ: {dict(list(wrong.items())[:5])}")
