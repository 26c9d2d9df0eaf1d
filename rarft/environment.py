"""Values of environment variables that a user or a Kubernetes secret sets."""

import os
import re

from rarft.errors import InputError

_INVALID = re.compile(r"[^\x21-\x7e]")


def read_variable(name: str, prefix: str = "") -> str | None:
    """Return a variable's value; None if it is not set or empty.

    White space around it, such as the newline at the end of a file that a secret was made from, is removed.

    Args:
        name: Name of the variable, whose value is a token, a key, a region or a URL.
        prefix: Text to remove from the start, such as `Bearer `.

    Raises:
        InputError: A character cannot be part of such a value. The message does not contain the value.
    """
    value = os.environ.get(name, "").strip()
    if prefix and value.lower().startswith(prefix.lower()):
        value = value[len(prefix) :].strip()
    if _INVALID.search(value):
        raise InputError(f"{name}: contains a space, a line break or a non-ASCII character; set it again without")
    return value or None
