"""From validated samples to the rows that the trainer draws."""

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from datasets import Dataset

from rarft.annotations.schema import Sample
from rarft.errors import InputError
from rarft.models.qwen2_5_vl.prompt_encoder import Message, video_prompt
from rarft.prompts import fill_prompt
from rarft.rewards.columns import reward_columns
from rarft.training.curriculum import Curriculum


def stratified_shuffle(samples: list[Sample], seed: int, epoch: int = 0) -> list[Sample]:
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


def filter_trainable(samples: list[Sample]) -> list[Sample]:
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


def item_of(sample: Sample) -> tuple[str, int]:
    """Return what the queries of one annotated item have in common."""
    return sample.source.file, sample.source.item


def pools_of(samples: list[Sample], queries_per_item: str, refusable_pool: int | None) -> list[list[Sample]]:
    """Group the samples into pools. Each epoch has one row per pool, which asks one query of it (D25).

    Args:
        samples: All samples of the data.
        queries_per_item: `pair`: one answerable and one refusable query per item; `all`: each query is a pool.
        refusable_pool: With `pair`, keep only so many refusable queries of an item, the first; None keeps all.

    Returns:
        The pools in the order in which they first appear in the data. Their queries are in the order of the item.
    """
    if queries_per_item == "all":
        return [[sample] for sample in samples]
    grouped: dict[tuple[tuple[str, int], str], list[Sample]] = defaultdict(list)
    for sample in samples:
        grouped[item_of(sample), sample.task_type].append(sample)
    return [
        sorted(pool, key=lambda sample: sample.source.query)[: refusable_pool if kind == "refusable" else None]
        for (_, kind), pool in grouped.items()
    ]


def draw(pool: list[Sample], seed: int, epoch: int, curriculum: Curriculum | None = None) -> Sample:
    """Draw the query that a pool asks in an epoch, uniformly from those that the curriculum admits.

    The result depends on nothing but the arguments, so it is the same on all ranks and after a resume.
    """
    admitted = curriculum.admitted(pool, epoch) if curriculum else pool
    return random.Random(f"{seed} {epoch} {pool[0].source.item} {pool[0].id}").choice(admitted)


def pad_to_batch(samples: list[Sample], prompts: int) -> list[Sample]:
    """The samples, filled up from the beginning to a multiple of `prompts`, which one generation draws.

    The sampler leaves an incomplete batch out: without this the same samples would never be trained on, and
    fewer samples than one batch would train nothing at all.
    """
    missing = -len(samples) % prompts
    return samples + [samples[index % len(samples)] for index in range(missing)]


def row(sample: Sample, template: str) -> dict[str, Any]:
    """One row of the trainer's data set: the conversation, and the columns that rewards read."""
    texts = fill_prompt(template, sample.query, sample.duration, sample.crop)
    return {"prompt": video_prompt(*texts, sample.video, sample.crop), **reward_columns(sample)}


def dataset(samples: list[Sample], template: str) -> Dataset:
    """A data set of the samples in their order."""
    return Dataset.from_list([row(sample, template) for sample in samples])


class TrainingDataset:
    """The rows of a training run, laid out anew for each epoch, the same for any number of ranks.

    Attributes:
        all_samples: Every sample that some epoch may ask.
        epoch: which epoch's rows are drawn; whoever drives the epochs sets it.
        on_draw: told of each prompt that was drawn, in time for its video to be read ahead.
    """

    def __init__(
        self, pools: list[list[Sample]], template: str, seed: int, prompts: int, curriculum: Curriculum | None = None
    ) -> None:
        """
        Args:
            pools: Queries of which an epoch asks one each, from `pools_of`.
            template: Text of the prompt template.
            seed: Random seed for the order and for the queries that are drawn.
            prompts: Number of prompts that one generation takes.
            curriculum: Filters the pools by epoch; None keeps them whole.
        """
        self._pools, self._template, self._seed, self._prompts = pools, template, seed, prompts
        self._curriculum = curriculum
        self._laid_out: tuple[int, list[Sample]] = (-1, [])
        self.all_samples = [sample for pool in pools for sample in pool]
        self.epoch = 0
        self.on_draw: Callable[[list[Message]], None] = lambda messages: None

    def samples(self) -> list[Sample]:
        """The present epoch's samples in their order, a whole number of generations."""
        if self._laid_out[0] != self.epoch:
            asked = [draw(pool, self._seed, self.epoch, self._curriculum) for pool in self._pools]
            self._laid_out = (
                self.epoch,
                pad_to_batch(stratified_shuffle(asked, self._seed, self.epoch), self._prompts),
            )
        return self._laid_out[1]

    def summary(self) -> str:
        """Return a line that counts items and rows."""
        items, rows = len({item_of(sample) for sample in self.all_samples}), len(self._pools)
        refusable = sum(pool[0].task_type == "refusable" for pool in self._pools) / rows
        line = f"{items} items, {rows} rows per epoch, {refusable:.0%} refusable"
        if more := len(self.samples()) - rows:
            line += f"; {more} more rows, repeated to fill the last batch"
        return line

    def _draw(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        samples = self.samples()
        rows = [row(samples[index], self._template) for index in batch["index"]]
        for drawn in dict(zip(batch["index"], rows, strict=True)).values():
            self.on_draw(drawn["prompt"])
        return {name: [each[name] for each in rows] for name in rows[0]}

    def dataset(self) -> Dataset:
        """A data set whose rows are made when they are drawn."""
        return Dataset.from_dict({"index": range(len(self.samples()))}).with_transform(self._draw)
