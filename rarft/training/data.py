"""The rows of a training run, made from validated samples."""

import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec
from datasets import Dataset
from transformers import TrainerCallback

from rarft.annotations.schema import Sample
from rarft.completion import format_segment
from rarft.errors import InputError
from rarft.models.qwen2_5_vl.prompt_encoder import Message, video_prompt
from rarft.prompts import fill_prompt
from rarft.rewards.columns import reward_columns
from rarft.training.curriculum import Curriculum


def stratified_shuffle(samples: list[Sample], seed: int, epoch: int = 0) -> list[Sample]:
    """Return the samples in random order, with the task types spread evenly over it."""
    rng = random.Random(f"{seed} {epoch}")
    placed = []
    for task_type in sorted({sample.task_type for sample in samples}):
        group = [sample for sample in samples if sample.task_type == task_type]
        rng.shuffle(group)
        placed += [((rank + 0.5) / len(group), task_type, sample) for rank, sample in enumerate(group)]
    return [sample for _, _, sample in sorted(placed, key=lambda entry: entry[:2])]


def filter_trainable(samples: list[Sample], path: str) -> list[Sample]:
    """Return the samples with a known duration, of the data at `path`.

    Raises:
        InputError: There are none.
    """
    with_duration = [sample for sample in samples if sample.duration is not None]
    if not with_duration:
        raise InputError(
            f"{path}: no query has a known duration, which the rewards need; add `duration` to the annotations, or "
            "give `rarft validate` access to the videos"
        )
    return with_duration


def apply_multi_segment(samples: list[Sample], policy: str) -> list[Sample]:
    """Return the samples with those of several segments left out ("skip"), cut to the first, or unchanged (D30)."""
    if policy == "union":
        return samples
    if policy == "skip":
        return [sample for sample in samples if len(sample.segments) < 2]
    return [
        msgspec.structs.replace(sample, segments=[first], segment=first, gt_answer=format_segment(first))
        if len(sample.segments) > 1 and (first := sample.segments[0])
        else sample
        for sample in samples
    ]


def _item_key(sample: Sample) -> tuple[str, int]:
    return sample.source.file, sample.source.item


def make_pools(samples: list[Sample], queries_per_item: str, refusable_pool: int | None) -> list[list[Sample]]:
    """Group the samples into pools. Each epoch has one row per pool, which asks one query of it (D25).

    With `queries_per_item="pair"` the answerable queries of an item are a pool, and its refusable ones, of which only
    the first `refusable_pool` are kept unless it is None. With "all" each query is a pool. Pools are in the order of
    their first appearance in the data, their queries in the order of the item.
    """
    if queries_per_item == "all":
        return [[sample] for sample in samples]
    groups: dict[tuple[tuple[str, int], str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[_item_key(sample), sample.task_type].append(sample)
    return [
        sorted(pool, key=lambda sample: sample.source.query)[: refusable_pool if task_type == "refusable" else None]
        for (_, task_type), pool in groups.items()
    ]


def draw(pool: list[Sample], seed: int, epoch: int, curriculum: Curriculum | None = None) -> Sample:
    """Draw the query that a pool asks in an epoch, uniformly from those that the curriculum admits.

    The result depends on nothing but the arguments, so it is the same on all ranks and after a resume.
    """
    admitted = curriculum.admitted(pool, epoch) if curriculum else pool
    return random.Random(f"{seed} {epoch} {pool[0].source.item} {pool[0].id}").choice(admitted)


def pad_to_batch(samples: list[Sample], prompts: int) -> list[Sample]:
    """Return the samples, extended by the first of them to a multiple of `prompts`, the prompts of one generation.

    The sampler drops an incomplete batch, so without padding some samples would never be trained on.
    """
    missing = -len(samples) % prompts
    return samples + [samples[index % len(samples)] for index in range(missing)]


def make_row(sample: Sample, template: str) -> dict[str, Any]:
    """Return a row of the trainer's data set: the conversation, and the columns that rewards read."""
    texts = fill_prompt(template, sample.query, sample.duration, sample.crop)
    return {"prompt": video_prompt(*texts, sample.video, sample.crop), **reward_columns(sample)}


def make_dataset(samples: list[Sample], template: str) -> Dataset:
    """Return a data set of the samples in their order."""
    return Dataset.from_list([make_row(sample, template) for sample in samples])


class TrainingDataset(TrainerCallback):
    """The rows of a training run, drawn again for each epoch, and the same for any number of ranks.

    As a callback of the trainer it learns which epoch begins.

    Args:
        pools: Queries of which an epoch asks one each, from `make_pools`.
        template: Text of the prompt template.
        seed: Random seed for the order and for the queries that are drawn.
        prompts: Number of prompts that one generation takes.
        curriculum: Filter of the pools by epoch.

    Attributes:
        all_samples: Every sample that some epoch may ask.
        epoch: Epoch whose rows are drawn.
        on_draw: Called with each prompt that is drawn, so that its video can be prefetched.
    """

    def __init__(
        self, pools: list[list[Sample]], template: str, seed: int, prompts: int, curriculum: Curriculum | None = None
    ) -> None:
        self._pools, self._template, self._seed, self._prompts = pools, template, seed, prompts
        self._curriculum = curriculum
        self._drawn: tuple[int, list[Sample]] = (-1, [])  # epoch, its samples
        self.all_samples = [sample for pool in pools for sample in pool]
        self.epoch = 0
        self.on_draw: Callable[[list[Message]], None] = lambda messages: None

    def samples(self) -> list[Sample]:
        """Return the samples of the current epoch in their order; their number is a multiple of a generation's."""
        if self._drawn[0] != self.epoch:
            queries = [draw(pool, self._seed, self.epoch, self._curriculum) for pool in self._pools]
            ordered = stratified_shuffle(queries, self._seed, self.epoch)
            self._drawn = (self.epoch, pad_to_batch(ordered, self._prompts))
        return self._drawn[1]

    def summary(self) -> str:
        """Return a line with the numbers of items and prompts."""
        items, rows = len({_item_key(sample) for sample in self.all_samples}), len(self._pools)
        refusable = sum(pool[0].task_type == "refusable" for pool in self._pools) / rows
        repeated = len(self.samples()) - rows
        line = f"{items} items, {rows} prompts per epoch, {refusable:.0%} refusable"
        return line + (f"; {repeated} prompts repeated to fill the last batch" if repeated else "")

    def _draw(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        samples = self.samples()
        rows = [make_row(samples[index], self._template) for index in batch["index"]]
        for row in dict(zip(batch["index"], rows, strict=True)).values():
            self.on_draw(row["prompt"])
        return {name: [row[name] for row in rows] for name in rows[0]}

    def dataset(self) -> Dataset:
        """Return a data set that makes a row when it is drawn."""
        return Dataset.from_dict({"index": range(len(self.samples()))}).with_transform(self._draw)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the epoch."""
        self.epoch = int(state.epoch or 0)
