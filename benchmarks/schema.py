"""Typed rows by msgspec or by pydantic, CPU seconds: `python benchmarks/schema.py RIQ_JSONL`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from pydantic import TypeAdapter, create_model
from timing import cpu_seconds

from rarft.annotations.schema import Sample, Source


def pydantic_model() -> Any:
    """The same fields as a pydantic v2 model."""
    of_source: dict[str, Any] = {field.name: (field.type, ...) for field in msgspec.structs.fields(Source)}
    of_sample: dict[str, Any] = {field.name: (field.type, ...) for field in msgspec.structs.fields(Sample)}
    of_sample["source"] = (create_model("Source", **of_source), ...)
    return TypeAdapter(create_model("Sample", **of_sample))


def main() -> None:
    """Print a table."""
    lines = Path(sys.argv[1]).read_bytes().splitlines()
    decoder, adapter = msgspec.json.Decoder(Sample), pydantic_model()
    structs = [decoder.decode(line) for line in lines]
    models = [adapter.validate_json(line) for line in lines]
    print(f"{len(lines)} rows          decode    encode")
    works: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "msgspec": (
            lambda: [decoder.decode(line) for line in lines],
            lambda: [msgspec.json.encode(row) for row in structs],
        ),
        "pydantic": (
            lambda: [adapter.validate_json(line) for line in lines],
            lambda: [model.model_dump_json() for model in models],
        ),
    }
    for name, (decode, encode) in works.items():
        print(f"{name:<16} {cpu_seconds(decode, 5):>8.3f} s {cpu_seconds(encode, 5):>7.3f} s")


if __name__ == "__main__":
    main()
