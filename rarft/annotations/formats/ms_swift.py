"""ms-swift JSON Lines: `{"messages": [{"role", "content"}], "videos": [PATH], ...}`.

The query is the field `query`, or else the user's message without `<video>`. The truth is the field `solution`, or
else the assistant's message: segments or a refusal. Each turn of a conversation is a query.
"""

from collections.abc import Iterator
from typing import Any

from rarft.annotations.formats.record import (
    Query,
    Record,
    UnreadablePart,
    as_list,
    as_object,
    has_fields,
    other_fields,
)
from rarft.annotations.parsing import extract_tag
from rarft.annotations.times import parse_segments
from rarft.answers import states_times

VIDEO_TAG = "<video>"


def recognize(record: Record) -> bool:
    """Check whether a record has this format."""
    return has_fields(record.value, "messages", "videos")


def _text(message: Any) -> str:
    """Return the text of a message, whose content is a text or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        raise ValueError("a message has no text")
    return content.replace(VIDEO_TAG, "").strip()


def _turns(messages: list[Any]) -> list[tuple[str, str | None]]:
    """Return the user's messages, each with the assistant's reply or None."""
    turns: list[tuple[str, str | None]] = []
    for message in messages:
        if not isinstance(message, dict):
            raise ValueError("a message is not an object")
        if message.get("role") == "user":
            turns.append((_text(message), None))
        elif message.get("role") == "assistant" and turns and turns[-1][1] is None:
            turns[-1] = (turns[-1][0], _text(message))
    return turns


def _truth(solution: Any) -> tuple[list[Any], str]:
    """Return the segments of a solution and, if there are none, the text of the refusal."""
    if isinstance(solution, list):
        is_list = bool(solution) and all(isinstance(part, list) for part in solution)
        return (solution if is_list else [solution] if solution else []), ""
    if not isinstance(solution, str):
        raise ValueError(f"solution is {solution!r}, not a segment or an answer")
    block = extract_tag(solution, "answer")
    answer = (solution if block is None else block).strip()
    if segments := parse_segments(answer):
        return list(map(list, segments)), ""
    if states_times(answer):
        raise ValueError("the answer states times in a form that cannot be read")
    return [], answer


def read(record: Record) -> Iterator[Query | UnreadablePart]:
    """Yield the queries of a conversation."""
    value = as_object(record.value, "messages", "videos")
    videos = as_list(value, "videos")
    if len(videos) != 1:
        raise ValueError(f"{len(videos)} videos, not one")
    turns = _turns(as_list(value, "messages"))
    if not turns:
        raise ValueError("no message of a user")
    has_columns = len(turns) == 1
    for number, (text, reply) in enumerate(turns):
        solution = value["solution"] if has_columns and "solution" in value else reply
        if solution is None and value.get("task_type") == "refusable":
            solution = []
        try:
            if solution is None:
                raise ValueError("neither a solution nor an assistant's message")
            segments, refusal = _truth(solution)
            if not segments and not refusal and reply:
                refusal = _truth(reply)[1]
        except ValueError as error:
            if has_columns:
                raise
            yield UnreadablePart(f"turn {number}: {error}", {"user": text, "assistant": reply})
            continue
        yield Query(
            video=videos[0],
            text=value.get("query", text) if has_columns else text,
            answerable=bool(segments),
            segments=segments,
            answer=refusal,
            duration=value.get("duration"),
            fields=other_fields(value, "messages", "videos", "query", "solution", "duration"),
        )
