"""Export validated data as ms-swift's JSON Lines, which its SFT and GRPO read.

The user's message is a video and the prompt of the template `rarft`. The columns `query`, `task_type`, `solution`,
`duration`, `reference_queries` and `id` are for reward functions.
"""

from collections.abc import Iterable
from typing import Any, BinaryIO

from rarft.annotations.encoding import compact_json
from rarft.annotations.formats.ms_swift import VIDEO_TAG
from rarft.annotations.schema import Sample
from rarft.prompts import PROMPTS, fill_prompt

_TEMPLATE = "rarft"


def ms_swift_row(sample: Sample) -> dict[str, Any]:
    """Return the row of a query. Without a ground-truth answer it has no message of the assistant."""
    before, after = fill_prompt(PROMPTS[_TEMPLATE], sample.query, sample.duration)
    messages = [{"role": "user", "content": f"{before}{VIDEO_TAG}{after}"}]
    if sample.gt_answer:
        messages.append({"role": "assistant", "content": f"<answer>{sample.gt_answer}</answer>"})
    return {
        "messages": messages,
        "videos": [sample.video],
        "query": sample.query,
        "task_type": sample.task_type,
        "solution": [list(segment) for segment in sample.segments],
        "duration": sample.duration,
        "reference_queries": sample.reference_queries,
        "id": sample.id,
    }


def export_ms_swift(samples: Iterable[Sample], out: BinaryIO) -> dict[str, int]:
    """Write the rows of validated queries; return their number, and the number of those with a crop."""
    counts = {"rows": 0, "with_crop": 0, "without_answer": 0}
    for sample in samples:
        out.write(compact_json(ms_swift_row(sample)) + b"\n")
        counts["rows"] += 1
        counts["with_crop"] += sample.crop is not None
        counts["without_answer"] += not sample.gt_answer
    return counts


def summary(counts: dict[str, int]) -> str:
    """Return the counts of an export as a few lines of text."""
    lines = [f"{counts['rows']} queries"]
    if counts["with_crop"]:
        lines.append(f"  {counts['with_crop']} with a crop, which ms-swift does not apply: it reads the whole video")
    if counts["without_answer"]:
        lines.append(f"  {counts['without_answer']} without a ground-truth answer: not usable for SFT")
    return "\n".join(lines)
