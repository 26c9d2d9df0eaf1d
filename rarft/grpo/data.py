"""From validated samples to the rows that the trainer draws."""

import random
from collections import defaultdict
from typing import Any

from datasets import Dataset

from rarft.errors import InputError
from rarft.qwen.inputs import video_prompt
from rarft.response import fill_prompt
from rarft.riq.schema import Sample


def stratified(samples: list[Sample], seed: int) -> list[Sample]:
    """The samples in random order, task types spread evenly: every stretch of the order has its share of each."""
    rng = random.Random(seed)
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.task_type].append(sample)
    placed = []
    for kind in sorted(groups):
        rng.shuffle(groups[kind])
        placed += [((rank + 0.5) / len(groups[kind]), kind, sample) for rank, sample in enumerate(groups[kind])]
    return [sample for _, _, sample in sorted(placed, key=lambda row: row[:2])]


def trainable(samples: list[Sample]) -> list[Sample]:
    """The samples whose duration is known.

    Raises:
        InputError: none is left.
    """
    kept = [sample for sample in samples if sample.duration is not None]
    if not kept:
        raise InputError(
            "--train_data_path: no query has a known duration, which the rewards need; "
            "give `duration` in the annotations, or let `rarft validate` see the videos"
        )
    return kept


def whole_batches(samples: list[Sample], prompts: int) -> list[Sample]:
    """The samples, filled up from the beginning to a multiple of `prompts`, which one generation draws.

    The sampler leaves an incomplete batch out: without this the same samples would never be trained on, and
    fewer samples than one batch would train nothing at all.
    """
    missing = -len(samples) % prompts
    return samples + [samples[index % len(samples)] for index in range(missing)]


def row(sample: Sample, template: str) -> dict[str, Any]:
    """One row of the trainer's data set: the conversation, and the columns that rewards read."""
    text = fill_prompt(template, sample.query, sample.duration, sample.crop)
    return {
        "prompt": video_prompt(text, sample.video, sample.crop),
        "task_type": sample.task_type,
        "solution": sample.segment,
        "durations": sample.duration,
        "query": sample.query,
        "reference_queries": sample.reference_queries,
        "gt_answers": sample.gt_answer,
        "contrast_answers": sample.contrast_answer,
    }


def dataset(samples: list[Sample], template: str) -> Dataset:
    """The trainer's data set, in the order of the samples."""
    return Dataset.from_list([row(sample, template) for sample in samples])
