"""Annotation items for tests, and a reader of JSON Lines."""

import json

ANSWERABLE = {"q": "a dog runs", "a": "<answer>1.0 to 4.0</answer>", "r": True, "difficulty": "original"}
REFUSABLE = {
    "q": "a cat runs",
    "a": "<answer>There is no cat.</answer>",
    "r": False,
    "c": ["Object/ObjectExistence"],
    "difficulty": "hard",
}


def item(**changes):
    base = {"video": "v.mp4", "query_text": "a dog runs", "timestamp": [1.0, 4.0], "duration": 10.0}
    return {**base, "GRPO": [ANSWERABLE, REFUSABLE], **changes}


def query(base, **changes):
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


def read_lines(path):
    """Return the rows of a JSON Lines file. Only \\n ends a line, unlike for `str.splitlines`."""
    with path.open(newline="\n", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
