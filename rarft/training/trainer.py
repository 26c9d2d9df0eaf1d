"""GRPO on video: TRL's trainer with five of its methods taken over, two of transformers' mended and two watched.

TRL keeps the loss, the sampler, logging and checkpoints. Taken over is what a video prompt needs: reading it
(`_tokenize_prompts`), generation with one prefill per prompt (`_generate_single_turn`), log-probabilities with
one forward per prompt (`_get_per_token_logps_and_entropies`), and two wrappers that carry the videos along and
keep a prompt's completions together (`_generate_and_score_completions`, `_compute_loss`). Mended is going on from a
checkpoint: its weights (`_load_from_checkpoint`), and no step beyond the last (`_run_epoch`). Watched are the gradient
norm (`_get_grad_norm`) and saves (`_save_checkpoint`): what is not finite is neither applied nor saved.

Each prompt has its own forward and its own backward, so `per_device_train_batch_size` does not change how many
activations are held, and no backward pass runs through two forwards. DeepSpeed's ZeRO-3 needs the latter: with
reentrant gradient checkpointing, which TRL forces for LoRA, a parameter's gradient hook fires once per forward, and
within one backward the second gradient replaces the first instead of being added to it.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from rarft.models.qwen2_5_vl.logprobs import (
    fits_logits_budget,
    limit_lm_head_to_completions,
    per_completion_logps,
    shared_prefix_logps,
)
from rarft.models.qwen2_5_vl.prefetch import PromptPrefetcher
from rarft.models.qwen2_5_vl.prompt_encoder import PromptInputs, prompt_text, video_path
from rarft.models.qwen2_5_vl.rollout import generate, vision_token_ids
from rarft.models.qwen2_5_vl.shared_prefix import enable_shared_prefix
from rarft.models.qwen2_5_vl.vision_features import enable_cached_features, encode_video, is_frozen
from rarft.models.qwen2_5_vl.vllm_rollout import generate_with_vllm
from rarft.rewards.columns import completion_text
from rarft.training.config import TrainingConfig
from rarft.training.console import completions_block
from rarft.training.divergence import StepGuard, check_weights
from rarft.training.skipped_videos import SkippedVideos
from rarft.training.stopwatch import Stopwatch
from rarft.video.reader import VideoError

# The private methods of trl 1.16 that are overridden, and the parameters that we rely on.
OVERRIDDEN_METHODS = {
    "_tokenize_prompts": {"prompts"},
    "_generate_single_turn": {"prompt_ids", "images", "multimodal_fields", "num_generations"},
    "_get_per_token_logps_and_entropies": {
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "compute_entropy",
    },
    "_generate_and_score_completions": {"inputs"},
    "_compute_loss": {"model", "inputs"},
    "_get_grad_norm": {"model", "grad_norm"},
}

# Files of weights are no larger, so that every store and every loader takes them.
MAX_SHARD = "5GB"

# Names under which the guide knows what TRL logs (decision D11).
METRIC_ALIASES = {"completions/mean_length": "completion_length", "entropy": "generation_entropy"}

# Metrics that TRL computes as means over the tokens of a micro-batch.
_TOKEN_MEANS = (
    "kl",
    "entropy",
    "clip_ratio/low_mean",
    "clip_ratio/high_mean",
    "clip_ratio/region_mean",
    "cispo_clip_ratio",
)


def check_trl_compat() -> None:
    """Make sure that TRL still has the methods that this trainer overrides.

    Raises:
        RuntimeError: it does not; the message names the method and the version that fits.
    """
    for name, wanted in OVERRIDDEN_METHODS.items():
        method = getattr(GRPOTrainer, name, None)
        missing = wanted - (inspect.signature(method).parameters.keys() if method else set())
        if missing:
            raise RuntimeError(
                f"trl's GRPOTrainer.{name} lacks {', '.join(sorted(missing))}: this trainer fits trl 1.16; "
                "install the pinned version"
            )


class VideoGRPOTrainer(GRPOTrainer):
    """GRPO in which each prompt's video is read once, and the prompt encoded once, for all of its completions."""

    args: TrainingConfig

    def __init__(self, *, prompt_reader: PromptPrefetcher, guard: StepGuard, **arguments: Any) -> None:
        """
        Args:
            prompt_reader: reads conversations into model inputs, ahead of time where it can.
            guard: checks each step's loss and gradient norm.
            arguments: of `trl.GRPOTrainer`.
        """
        check_trl_compat()
        self._prompt_reader, self._guard = prompt_reader, guard
        self._stopwatch = Stopwatch()
        self._laps = 0
        # Prompts of the rows in flight, one per group; set by whichever seam hands rows on.
        self._groups: list[PromptInputs] = []
        args = arguments["args"]
        # It would replace a loss that is not finite in what the guard sees, and costs a transfer per micro-batch.
        args.logging_nan_inf_filter = False
        self._skipped_videos = SkippedVideos(args.max_skipped_videos)
        self._always_log_completions = args.log_completions
        if args.log_completions_steps and not args.log_completions:
            args.log_completions = True  # so that TRL makes the tables' folder
            args.num_completions_to_print = 0  # our own block is printed
        super().__init__(**arguments)
        if not args.use_peft:  # adapters are small, and saved by other code
            save = self.model.save_pretrained
            self.model.save_pretrained = functools.partial(save, max_shard_size=MAX_SHARD)
        tokens = max(self.num_generations, self.num_generations_eval) * self.max_completion_length
        self._keeps_logits = fits_logits_budget(tokens, self.model.config.text_config.vocab_size)
        self.reward_funcs: list[Any] = [self._timed("reward", reward) for reward in self.reward_funcs]
        self.accelerator.backward = self._timed("backward", self.accelerator.backward)
        # With vLLM the vision tower's features are the engine's own, and no pass here comes before the loss.
        self._reuses_vision = is_frozen(self.model) and not self.use_vllm
        models = [self.model, *([self.accelerator.unwrap_model(self.ref_model)] if self.ref_model is not None else [])]
        for model in models:
            limit_lm_head_to_completions(model)
            if args.prompt_sharing == "on":
                enable_shared_prefix(model)
            if self._reuses_vision:
                enable_cached_features(model)

    def _timed(self, part: str, function: Any) -> Any:
        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self._stopwatch.part(part):
                return function(*arguments, **options)

        return timed

    @property
    def _group_size(self) -> int:
        return self.num_generations if self.model.training else self.num_generations_eval

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        G = self._group_size
        device = self.accelerator.device
        self._skipped_videos.groups = []
        with self._stopwatch.part("decode"):
            self._groups = [self._read(index, prompt).to(device) for index, prompt in enumerate(prompts[::G])]
        self._skipped_videos.agree(self.accelerator.is_main_process)
        return [group.input_ids_L.tolist() for group in self._groups for _ in range(G)], None, {}

    def _read(self, index: int, messages: Any) -> PromptInputs:
        """The group's prompt; where its video cannot be read, a grey one that nothing will be learnt from.

        So every rank goes on with as many forwards, of the same kind, as the others.
        """
        try:
            return self._prompt_reader.get(messages)
        except VideoError as error:
            self._skipped_videos.add(index, video_path(messages), str(error))
            return self._prompt_reader.encoder.placeholder_inputs(messages)

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, **_: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        if self.use_vllm:
            with self._stopwatch.part("rollout"):
                return self._generate_with_vllm(num_generations)
        completions: list[list[int]] = []
        with (
            self._stopwatch.part("rollout"),
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
        ):
            was_training = model.training
            model.eval()
            if self._reuses_vision:
                with self.accelerator.autocast():
                    self._groups = [encode_video(model, prompt) for prompt in self._groups]
            # As many prompts at a time as `--per_device_train_batch_size` says: their caches are held together.
            for start in range(0, len(self._groups), self.args.prompts_per_device):
                prompts = self._groups[start : start + self.args.prompts_per_device]
                completions += generate(model, prompts, num_generations, self.generation_config)
            model.train(was_training)
        return completions, None

    def _generate_with_vllm(self, num_generations: int) -> tuple[list[list[int]], list[list[float]]]:
        from vllm import SamplingParams

        if self.state.global_step != self._last_loaded_step:
            self.vllm_generation.sync_weights()
            self._last_loaded_step: int = self.state.global_step
        args, config = self.args, self.model.config
        sampling = SamplingParams(
            n=num_generations,
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            min_p=args.min_p or 0.0,
            repetition_penalty=args.repetition_penalty,
            max_tokens=args.max_completion_length,
            logprobs=0,  # of the sampled tokens alone
            logit_bias=dict.fromkeys(vision_token_ids(config), -100.0),
        )
        return generate_with_vllm(self.vllm_generation.llm, self._groups, config.video_token_id, sampling)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        G = input_ids.shape[0] // len(self._groups)
        self._check_groups(input_ids, attention_mask, logits_to_keep)
        completion_ids_BC = input_ids[:, -logits_to_keep:]
        completion_mask_BC = attention_mask[:, -logits_to_keep:]
        logps, entropies = [], []
        for index, prompt in enumerate(self._groups):
            rows = slice(index * G, (index + 1) * G)
            group = (model, prompt, completion_ids_BC[rows], completion_mask_BC[rows])
            with self._stopwatch.part("forward"), self.accelerator.autocast():
                options = {
                    "temperature": self.temperature, "with_entropy": compute_entropy,
                    "keep_logits": self._keeps_logits, "entropy_grad": self._entropy_bonus_enabled,
                }  # fmt: skip
                if self.args.prompt_sharing == "on":
                    group_logps, group_entropies = shared_prefix_logps(*group, **options)
                else:
                    pad = self._tokenizer.pad_token_id
                    group_logps, group_entropies = per_completion_logps(*group, pad, **options)
            logps.append(group_logps)
            if group_entropies is not None:
                entropies.append(group_entropies)
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _check_groups(self, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int) -> None:
        """Make sure that each group's rows are of the prompt that it will be scored on.

        Raises:
            RuntimeError: a row was parted from its video.
        """
        G = input_ids.shape[0] // len(self._groups)
        lengths = attention_mask[:, :-logits_to_keep].sum(1)
        for index, prompt in enumerate(self._groups):
            P = prompt.input_ids_L.numel()
            rows = input_ids[index * G : (index + 1) * G, : input_ids.shape[1] - logits_to_keep][:, -P:]
            if not (lengths[index * G : (index + 1) * G] == P).all() or not (rows == prompt.input_ids_L).all():
                raise RuntimeError(f"group {index} of the batch was parted from its prompt")

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        self._logs_as_text()
        self._print_completions(inputs)
        B, G = output["prompt_ids"].shape[0], self._group_size
        for index in self._skipped_videos.groups:
            for name in ("completion_mask", "advantages"):
                output[name][index * G : (index + 1) * G] = 0
        # As (groups, G, ...), so that TRL's shuffling and splitting move whole groups with their video.
        grouped = {
            name: value.view(B // G, G, *value.shape[1:])
            if isinstance(value, Tensor) and value.ndim and value.shape[0] == B
            else value
            for name, value in output.items()
        }
        return grouped | {"video_prompts": list(self._groups)}

    def _logs_as_text(self) -> None:
        """Turn the conversations that TRL keeps for its table into text, which every tracker takes."""
        for column, as_text in (("prompt", prompt_text), ("completion", completion_text)):
            rows = self._logs[column]
            for index, row in enumerate(rows):
                rows[index] = as_text(row)

    @property
    def _shows_completions(self) -> bool:
        every = self.args.log_completions_steps
        return every > 0 and self.state.global_step % every == 0

    def _print_completions(self, inputs: list[dict[str, Any]]) -> None:
        """Print the first group with its rewards, every `log_completions_steps` of training, on the main process."""
        if not (self.model.training and self._shows_completions and self.accelerator.is_main_process):
            return
        G = self._group_size

        def first(values: Any) -> list[Any]:
            return list(values)[-len(self._logs["completion"]) :][:G]

        block = completions_block(
            inputs[0]["query"],
            inputs[0]["task_type"],
            first(self._logs["completion"]),
            {name: first(values) for name, values in self._logs["rewards"].items()},
            {name: first(values) for name, values in self._logs["extra"].items()},
        )
        step = self.state.global_step + 1
        print(f"step {step}: the completions of one of its queries, and what each was given", flush=True)
        print(block, flush=True)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """The loss of a micro-batch of prompts, summed prompt by prompt.

        In training the backward pass of each prompt but the last runs here, before the next prompt's forward; the
        last one's is left to the caller. The gradients are those of one backward over all of them.

        Args:
            model: the wrapped policy.
            inputs: tensors (prompts, G, ...), and the prompts themselves.

        Returns:
            The scaled loss, a scalar; only the last prompt's part of it has a graph.
        """
        prompts = inputs["video_prompts"]
        tokens_P = inputs["completion_mask"].sum((1, 2))
        # TRL normalizes `bnpo` by the tokens of the micro-batch; each of the others is a mean over completions, or a
        # sum over `num_items_in_batch`, of which each prompt gets its part.
        weights_P = (
            tokens_P / tokens_P.sum().clamp(min=1)
            if self.loss_type == "bnpo"
            else torch.full_like(tokens_P, 1 / len(prompts), dtype=torch.float32)
        )
        total = torch.zeros((), device=tokens_P.device)
        for index, prompt in enumerate(prompts):
            self._groups = [prompt]
            rows = {
                name: value[index] if isinstance(value, Tensor) and value.ndim > 1 else value
                for name, value in inputs.items()
                if name != "video_prompts"
            }
            rows["num_items_in_batch"] = inputs["num_items_in_batch"] / len(prompts)
            backward_here = self.model.training and index < len(prompts) - 1
            with self._accumulating(model) if backward_here else contextlib.nullcontext():
                loss = weights_P[index] * super()._compute_loss(model, rows)
                if backward_here:
                    # The loss is scaled for accumulation already; DeepSpeed must not scale it again.
                    self.accelerator.backward(loss, **({"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}))
                    loss = loss.detach()
            total = total + loss
        self._merge_metrics(tokens_P)
        return total

    @contextlib.contextmanager
    def _accumulating(self, model: Any) -> Iterator[None]:
        """Add to the gradients: the optimizer does not step, and DDP does not synchronize them."""
        synchronizes = self.accelerator.sync_gradients
        self.accelerator.sync_gradients = False
        try:
            # DeepSpeed honors `sync_gradients`; its own `no_sync` does not support ZeRO.
            with contextlib.nullcontext() if self.is_deepspeed_enabled else self.accelerator.no_sync(model):
                yield
        finally:
            self.accelerator.sync_gradients = synchronizes

    def _merge_metrics(self, tokens_P: Tensor) -> None:
        """Replace the prompts' token means in TRL's metrics with those of the micro-batch on all ranks."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        tokens_P = self.accelerator.reduce(tokens_P, reduction="sum")
        shares_P = tokens_P.cpu() / tokens_P.sum().clamp(min=1).item()
        for name in _TOKEN_MEANS:
            if name in metrics:
                values_P = torch.tensor(metrics[name][-len(shares_P) :])
                metrics[name][-len(shares_P) :] = [(shares_P * values_P).sum().item()]

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._guard.check(self.state.global_step + 1, self._tr_loss, norm)  # the losses since the last log entry
        return norm

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        check_weights(self.model, self.state.global_step)
        super()._save_checkpoint(*arguments, **options)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights that training goes on from, where DeepSpeed does not.

        transformers looks a checkpoint's names up as they are, without the renaming of `from_pretrained`; for
        Qwen2.5-VL it finds none of them, warns, and goes on with the weights that it has.
        """
        model = self.model if model is None else model
        if self.is_deepspeed_enabled or self.args.use_peft:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(model).from_pretrained(resume_from_checkpoint, dtype=model.dtype)
        model.load_state_dict(saved.state_dict())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, adding the guide's names beside TRL's."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        if metrics and self.model.training:
            self._log_times(metrics)
            metrics["videos/skipped"] = [len(self._skipped_videos)]
        for name in list(metrics):
            if name.startswith("rewards/") and name.endswith("/mean"):
                metrics[name.removesuffix("/mean")] = list(metrics[name])
            elif name in METRIC_ALIASES:
                metrics[METRIC_ALIASES[name]] = list(metrics[name])
        # TRL's table of completions: a parquet file, and where the tracker takes tables, one there.
        due = bool(metrics) and self.model.training and self._shows_completions
        self.log_completions = self._always_log_completions or due
        super().log(logs, start_time)

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """One epoch; none where the checkpoint that the run went on from was its last, which is not looked at else."""
        self._stopwatch.lap()
        self._laps = self.state.global_step
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*arguments, **options)

    def _log_times(self, metrics: dict[str, list[float]]) -> None:
        steps = self.state.global_step - self._laps
        self._laps = self.state.global_step
        for name, seconds in self._stopwatch.lap().items():
            metrics[f"time/{name}"] = [seconds / max(1, steps)]
