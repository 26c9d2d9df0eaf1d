"""Logging of the trainer in addition to that of TRL: times, the guide's metrics, and groups of completions."""

import functools
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from rarft.completion import parse_completion
from rarft.models.qwen2_5_vl.prompt_encoder import prompt_text
from rarft.rewards.columns import completion_text
from rarft.training.callbacks.log import JsonlLogCallback
from rarft.training.config import TrainingConfig

logger = logging.getLogger(__name__)

# The guide's names of metrics that TRL logs (decision D11).
METRIC_ALIASES = {"completions/mean_length": "completion_length", "entropy": "generation_entropy"}

# Metrics that TRL computes as means over the tokens of a micro-batch; with `--importance_sampling_level sequence`, the
# clip ratios are means over its completions.
TOKEN_MEANS = (
    *("kl", "entropy", "cispo_clip_ratio"),
    *("clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"),
)

_BLOCK_WIDTH = 80
_MAX_CHARACTERS = 160  # of a completion

Values = Mapping[str, Sequence[float | None]]  # one value per completion, by name


class Stopwatch:
    """Adds up seconds by part. Work that is queued on a GPU counts for the part that queued it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lap_start = time.perf_counter()

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        start = self._now()
        try:
            yield
        finally:
            self._seconds[name] += self._now() - start

    def lap(self) -> dict[str, float]:
        """Return the seconds of each part since the last lap, and of all of it as `total`; start the next lap."""
        now = self._now()
        seconds = {**self._seconds, "total": now - self._lap_start}
        self._seconds.clear()
        self._lap_start = now
        return seconds


def _format_values(values: Sequence[float | None]) -> str:
    return "[" + ", ".join("-" if value is None or math.isnan(value) else f"{value:.2f}" for value in values) + "]"


def completions_block(row: Mapping[str, Any], completions: Sequence[str], rewards: Values, parts: Values) -> str:
    """Return the training guide's console block for one group: its query, completions, rewards and their parts."""
    lines = [
        f"Query: {row['query']}",
        f"Task Type: {row['task_type']}",
        f"Generated Completions ({len(completions)}):",
    ]
    for number, completion in enumerate(completions, 1):
        text = " ".join(completion.split())
        lines.append(f"  [{number}] {text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + '...'}")
    lines.append("=" * _BLOCK_WIDTH)
    outcomes = [parse_completion(completion).outcome or "none" for completion in completions]
    lines.append(f"answers: [{', '.join(outcomes)}]")
    lines += [f"reward_{name.removesuffix('_reward')}: {_format_values(values)}" for name, values in rewards.items()]
    applicable = {name: values for name, values in parts.items() if any(value is not None for value in values)}
    lines += [f"  {name}: {_format_values(values)}" for name, values in applicable.items()]
    return "\n".join(lines)


class LoggingGRPOTrainer(GRPOTrainer):
    """TRL's trainer that logs the time of each part of a step, the guide's metrics, and groups of completions."""

    args: TrainingConfig

    def __init__(self, **arguments: Any) -> None:
        self._stopwatch = Stopwatch()
        self._lap_start_step = 0
        args = arguments["args"]
        self._always_log_completions = args.log_completions
        if args.log_completions_steps and not args.log_completions:
            args.log_completions = True  # so that TRL creates the folder of its tables
            args.num_completions_to_print = 0  # TRL prints none
        super().__init__(**arguments)
        self.reward_funcs: list[Any] = [self._timed("reward", reward) for reward in self.reward_funcs]
        self.accelerator.backward = self._timed("backward", self.accelerator.backward)

    def _timed(self, part: str, function: Any) -> Any:
        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self._stopwatch.part(part):
                return function(*arguments, **options)

        return timed

    @property
    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    @property
    def _mode_metrics(self) -> dict[str, list[float]]:
        """Values since the last log entry, by metric."""
        return self._metrics["train" if self.model.training else "eval"]

    @property
    def _is_completions_step(self) -> bool:
        interval = self.args.log_completions_steps
        return self.model.training and interval > 0 and self.state.global_step % interval == 0

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        # Conversations become text, which every tracker accepts.
        for column, to_text in (("prompt", prompt_text), ("completion", completion_text)):
            rows = self._logs[column]
            for index, row in enumerate(rows):
                rows[index] = to_text(row)
        if self._is_completions_step and self.accelerator.is_main_process:
            self._log_first_group(inputs[0])
        return output

    def _log_first_group(self, row: dict[str, Any]) -> None:
        """Log the first group of completions with its rewards."""
        count, G = len(self._logs["completion"]), self._group_size

        def first(values: Any) -> list[Any]:
            return list(values)[-count:][:G]

        completions = first(self._logs["completion"])
        rewards, parts = (
            {name: first(values) for name, values in self._logs[kind].items()} for kind in ("rewards", "extra")
        )
        block = completions_block(row, completions, rewards, parts)
        step = self.state.global_step + 1
        logger.info("step %d: completions and rewards\n%s", step, block)
        group = {
            "step": step, "query": row["query"], "truth": str(row["solution"] or "does not fit the video"),
            "texts": completions, "rewards": rewards, "parts": parts,
        }  # fmt: skip
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, JsonlLogCallback):
                callback.completions = group

    def _merge_token_means(self, tokens_P: Tensor) -> None:
        """Replace the last values of token means, one per prompt, with those over the micro-batch of all ranks.

        `tokens_P` are the numbers of completion tokens on this rank.
        """
        metrics = self._mode_metrics
        tokens_P = self.accelerator.reduce(tokens_P, reduction="sum").cpu()
        by_tokens_P = tokens_P / tokens_P.sum().clamp(min=1)
        by_completions_P = torch.full_like(by_tokens_P, 1 / len(tokens_P))
        for name in metrics.keys() & TOKEN_MEANS:
            has_sequences = self.importance_sampling_level == "sequence" and "clip_ratio" in name
            weights_P = by_completions_P if has_sequences else by_tokens_P
            values_P = torch.tensor(metrics[name][-len(weights_P) :])
            metrics[name][-len(weights_P) :] = [(weights_P * values_P).sum().item()]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with times, and with the guide's names of metrics in addition to TRL's."""
        metrics = self._mode_metrics
        if metrics and self.model.training:
            steps = max(1, self.state.global_step - self._lap_start_step)
            self._lap_start_step = self.state.global_step
            metrics.update({f"time/{name}": [seconds / steps] for name, seconds in self._stopwatch.lap().items()})
        for name in list(metrics):
            if name.startswith("rewards/") and name.endswith("/mean"):
                metrics[name.removesuffix("/mean")] = list(metrics[name])
            elif name in METRIC_ALIASES:
                metrics[METRIC_ALIASES[name]] = list(metrics[name])
        # TRL's table of completions: a parquet file, and a table of the tracker if it has tables.
        self.log_completions = self._always_log_completions or (bool(metrics) and self._is_completions_step)
        super().log(logs, start_time)

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        self._stopwatch.lap()
        self._lap_start_step = self.state.global_step
        super()._run_epoch(*arguments, **options)
