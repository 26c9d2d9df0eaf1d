"""Metrics and completions that the trainer logs, in addition to TRL's."""

import functools
import logging
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from rarft.models.qwen2_5_vl.prompt_encoder import prompt_text
from rarft.rewards.columns import completion_text
from rarft.training.config import TrainingConfig
from rarft.training.console import completions_block
from rarft.training.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

# The guide's names of metrics that TRL logs (decision D11).
METRIC_ALIASES = {"completions/mean_length": "completion_length", "entropy": "generation_entropy"}

# Metrics that TRL computes as means over the tokens of a micro-batch.
TOKEN_MEANS = (
    "kl",
    "entropy",
    "clip_ratio/low_mean",
    "clip_ratio/high_mean",
    "clip_ratio/region_mean",
    "cispo_clip_ratio",
)


class LoggingGRPOTrainer(GRPOTrainer):
    """TRL's trainer that logs the time of each part of a step, the guide's metrics, and groups of completions."""

    args: TrainingConfig

    def __init__(self, **arguments: Any) -> None:
        """
        Args:
            arguments: Arguments of `trl.GRPOTrainer`.
        """
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
        metrics: dict[str, list[float]] = self._metrics["train" if self.model.training else "eval"]
        return metrics

    @property
    def _is_completions_step(self) -> bool:
        interval = self.args.log_completions_steps
        return interval > 0 and self.state.global_step % interval == 0

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        # Conversations become text, which every tracker accepts.
        for column, to_text in (("prompt", prompt_text), ("completion", completion_text)):
            rows = self._logs[column]
            for index, row in enumerate(rows):
                rows[index] = to_text(row)
        if self.model.training and self._is_completions_step and self.accelerator.is_main_process:
            self._log_first_group(inputs[0])
        return output

    def _log_first_group(self, row: dict[str, Any]) -> None:
        """Log the first group of completions with its rewards."""
        count, G = len(self._logs["completion"]), self._group_size

        def first(values: Any) -> list[Any]:
            return list(values)[-count:][:G]

        block = completions_block(
            row["query"],
            row["task_type"],
            first(self._logs["completion"]),
            {name: first(values) for name, values in self._logs["rewards"].items()},
            {name: first(values) for name, values in self._logs["extra"].items()},
        )
        logger.info("step %d: completions and rewards\n%s", self.state.global_step + 1, block)

    def _merge_token_means(self, tokens_P: Tensor) -> None:
        """Replace the last values of token means, one per prompt, by those over the micro-batch of all ranks.

        Args:
            tokens_P: Number of completion tokens of each prompt on this rank.
        """
        metrics = self._mode_metrics
        tokens_P = self.accelerator.reduce(tokens_P, reduction="sum")
        weights_P = tokens_P.cpu() / tokens_P.sum().clamp(min=1).item()
        for name in TOKEN_MEANS:
            if name in metrics:
                values_P = torch.tensor(metrics[name][-len(weights_P) :])
                metrics[name][-len(weights_P) :] = [(weights_P * values_P).sum().item()]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the guide's names of metrics in addition to TRL's."""
        metrics = self._mode_metrics
        if metrics and self.model.training:
            self._add_times(metrics)
        for name in list(metrics):
            if name.startswith("rewards/") and name.endswith("/mean"):
                metrics[name.removesuffix("/mean")] = list(metrics[name])
            elif name in METRIC_ALIASES:
                metrics[METRIC_ALIASES[name]] = list(metrics[name])
        # TRL's table of completions: a parquet file, and a table of the tracker if it has tables.
        is_due = bool(metrics) and self.model.training and self._is_completions_step
        self.log_completions = self._always_log_completions or is_due
        super().log(logs, start_time)

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        self._stopwatch.lap()
        self._lap_start_step = self.state.global_step
        super()._run_epoch(*arguments, **options)

    def _add_times(self, metrics: dict[str, list[float]]) -> None:
        steps = max(1, self.state.global_step - self._lap_start_step)
        self._lap_start_step = self.state.global_step
        for name, seconds in self._stopwatch.lap().items():
            metrics[f"time/{name}"] = [seconds / steps]
