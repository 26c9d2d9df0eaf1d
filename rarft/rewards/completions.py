"""The text of a completion, in either of the forms in which TRL hands it to a reward."""

from typing import Any


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """Plain text as it is; of a conversation, the content of its last turn."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
