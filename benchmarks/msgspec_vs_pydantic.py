"""CPU time of decoding and encoding the rows of a validated file by msgspec and by pydantic.

`python benchmarks/msgspec_vs_pydantic.py RIQ_JSONL`
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cpu_time import cpu_seconds
from pydantic import TypeAdapter, create_model

from rarft.annotations.schema import Sample, Source


def pydantic_adapter() -> Any:
    """Return a pydantic v2 adapter with the same fields."""
    source_fields: dict[str, Any] = {field.name: (field.type, ...) for field in msgspec.structs.fields(Source)}
    sample_fields: dict[str, Any] = {field.name: (field.type, ...) for field in msgspec.structs.fields(Sample)}
    sample_fields["source"] = (create_model("Source", **source_fields), ...)
    return TypeAdapter(create_model("Sample", **sample_fields))


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="RIQ_JSONL")
    lines = parser.parse_args().data.read_bytes().splitlines()
    decoder, adapter = msgspec.json.Decoder(Sample), pydantic_adapter()
    structs = [decoder.decode(line) for line in lines]
    models = [adapter.validate_json(line) for line in lines]
    functions: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "msgspec": (
            lambda: [decoder.decode(line) for line in lines],
            lambda: [msgspec.json.encode(row) for row in structs],
        ),
        "pydantic": (
            lambda: [adapter.validate_json(line) for line in lines],
            lambda: [model.model_dump_json() for model in models],
        ),
    }
    print(f"{len(lines)} rows          decode    encode")
    for name, (decode, encode) in functions.items():
        print(f"{name:<16} {cpu_seconds(decode, 5):>8.3f} s {cpu_seconds(encode, 5):>7.3f} s")


if __name__ == "__main__":
    main()
