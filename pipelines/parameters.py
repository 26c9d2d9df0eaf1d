"""`-p name=value`: the pipeline's parameters as a person gives them, checked before anything is started."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kfp.pipeline_spec.pipeline_spec_pb2 import ParameterType, PipelineSpec

from rarft.errors import InputError
from rarft.storage.files import open_local

_JSON: dict[Any, tuple[Any, str]] = {
    ParameterType.STRUCT: (dict, "a JSON object"),
    ParameterType.LIST: (list, "a JSON list"),
    ParameterType.NUMBER_INTEGER: (int, "a whole number"),
    ParameterType.NUMBER_DOUBLE: ((int, float), "a number"),
    ParameterType.BOOLEAN: (bool, "true or false"),
}


def _value(name: str, text: str, kind: Any) -> Any:
    if text.startswith("@"):
        with open_local(text[1:], f"-p {name}=@") as file:
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"-p {name}={text}: is no UTF-8 text ({error}); give another file") from error
    if kind == ParameterType.STRING:
        return text
    wanted, words = _JSON[kind]
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise InputError(f"-p {name}={text}: must be {words}")
    return value


def parse(given: Sequence[str], spec: PipelineSpec) -> dict[str, Any]:
    """Values by name; `@FILE` stands for the file's content.

    Args:
        given: each `name=value`.
        spec: the pipeline that takes them.

    Raises:
        InputError: not of that form, no such parameter, or a value that is not of its type.
    """
    known = spec.root.input_definitions.parameters
    found: dict[str, Any] = {}
    for assignment in given:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"-p {assignment}: give it as name=value")
        if name in found:
            raise InputError(f"-p {name}: is given twice")
        if name not in known:
            raise InputError(f"-p {name}: the pipeline has no such parameter; it has {', '.join(sorted(known))}")
        found[name] = _value(name, text, known[name].parameter_type)
    return found


def check_complete(values: Mapping[str, Any], spec: PipelineSpec) -> None:
    """Make sure that what has no default is given.

    Raises:
        InputError: it is not.
    """
    known = spec.root.input_definitions.parameters
    missing = [name for name in sorted(known) if name not in values and not known[name].is_optional]
    if missing:
        raise InputError(f"-p {missing[0]}=...: must be given (missing: {', '.join(missing)})")
