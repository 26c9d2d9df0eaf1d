"""From validated samples to the rows that the trainer draws."""

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from datasets import Dataset

from rarft.errors import InputError
from rarft.grpo.curriculum import Curriculum
from rarft.qwen.inputs import Message, video_prompt
from rarft.response import fill_prompt
from rarft.riq.schema import Sample


def stratified(samples: list[Sample], seed: int, epoch: int = 0) -> list[Sample]:
    """The samples in random order, task types spread evenly: every stretch of the order has its share of each."""
    rng = random.Random(f"{seed} {epoch}")
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
    texts = fill_prompt(template, sample.query, sample.duration, sample.crop)
    return {
        "prompt": video_prompt(*texts, sample.video, sample.crop),
        "task_type": sample.task_type,
        "solution": sample.segment,
        "durations": sample.duration,
        "query": sample.query,
        "reference_queries": sample.reference_queries,
        "gt_answers": sample.gt_answer,
        "contrast_answers": sample.contrast_answer,
    }


def dataset(samples: list[Sample], template: str) -> Dataset:
    """A data set of the samples in their order."""
    return Dataset.from_list([row(sample, template) for sample in samples])


class TrainingRows:
    """The rows of a training run, laid out anew for each epoch, the same for any number of ranks.

    Attributes:
        all_samples: of the data, in its order.
        epoch: which epoch's rows are drawn; whoever drives the epochs sets it.
        on_draw: told of each prompt that was drawn, in time for its video to be read ahead.
    """

    def __init__(
        self, samples: list[Sample], template: str, seed: int, prompts: int, curriculum: Curriculum | None = None
    ) -> None:
        """
        Args:
            samples: all of them.
            template: of the prompts.
            seed: of the order.
            prompts: how many one generation draws.
            curriculum: picks which query is asked, or None.
        """
        self._template, self._seed, self._prompts, self._curriculum = template, seed, prompts, curriculum
        self._laid_out: tuple[int, list[Sample]] = (-1, [])
        self.all_samples = samples
        self.epoch = 0
        self.on_draw: Callable[[list[Message]], None] = lambda messages: None

    def samples(self) -> list[Sample]:
        """The present epoch's samples in their order, a whole number of generations."""
        if self._laid_out[0] != self.epoch:
            order = whole_batches(stratified(self.all_samples, self._seed, self.epoch), self._prompts)
            if self._curriculum:
                order = [self._curriculum.pick(sample, self.epoch) for sample in order]
            self._laid_out = (self.epoch, order)
        return self._laid_out[1]

    def _draw(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        samples = self.samples()
        rows = [row(samples[index], self._template) for index in batch["index"]]
        for drawn in dict(zip(batch["index"], rows, strict=True)).values():
            self.on_draw(drawn["prompt"])
        return {name: [each[name] for each in rows] for name in rows[0]}

    def dataset(self) -> Dataset:
        """A data set whose rows are made when they are drawn."""
        return Dataset.from_dict({"index": range(len(self.samples()))}).with_transform(self._draw)
