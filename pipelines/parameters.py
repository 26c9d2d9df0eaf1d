"""Parameters of the pipeline as users give them: `-p name=value`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType, PipelineSpec

from rarft.errors import InputError, did_you_mean, input_name
from rarft.storage.location import open_local

# JSON types of the parameter types that are not text, and what to call them.
_JSON: dict[Any, tuple[Any, str]] = {
    ParameterType.STRUCT: (dict, "a JSON object"),
    ParameterType.LIST: (list, "a JSON list"),
    ParameterType.NUMBER_INTEGER: (int, "an integer"),
    ParameterType.NUMBER_DOUBLE: ((int, float), "a number"),
    ParameterType.BOOLEAN: (bool, "true or false"),
}


def _read_file(name: str, uri: str) -> str:
    with input_name(f"-p {name}:"), open_local(uri) as file:
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{uri}: not valid UTF-8 ({error}); convert the file") from error


def _parse_value(name: str, text: str, parameter_type: Any) -> Any:
    if text.startswith("@"):
        text = _read_file(name, text[1:])
    if parameter_type == ParameterType.STRING:
        return text
    python_type, description = _JSON[parameter_type]
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, python_type) or (isinstance(value, bool) and python_type is not bool):
        raise InputError(f"-p {name}={text}: must be {description}")
    return value


def parse(assignments: Sequence[str], spec: PipelineSpec) -> dict[str, Any]:
    """Return parameter values by name.

    Args:
        assignments: Each `name=value`; `@FILE` as the value is replaced by the file's content.
        spec: The pipeline.

    Raises:
        InputError: An assignment is malformed, or a parameter is unknown, repeated or of the wrong type.
    """
    known = spec.root.input_definitions.parameters
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"-p {assignment}: must have the form name=value")
        if name in values:
            raise InputError(f"-p {name}: given twice; remove one")
        if name not in known:
            hint = did_you_mean(name, known) or f"; use one of {', '.join(sorted(known))}"
            raise InputError(f"-p {name}: no such parameter{hint}")
        values[name] = _parse_value(name, text, known[name].parameter_type)
    return values


def check_complete(values: Mapping[str, Any], spec: PipelineSpec) -> None:
    """Check that all parameters without a default are given.

    Raises:
        InputError: One is missing.
    """
    known = spec.root.input_definitions.parameters
    missing = [name for name in sorted(known) if name not in values and not known[name].is_optional]
    if missing:
        raise InputError(f"-p {missing[0]}=...: required (missing: {', '.join(missing)})")
