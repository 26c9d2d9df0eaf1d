"""GRPO on video: TRL's trainer with the overrides that a video prompt needs.

TRL keeps the loss, the sampler, logging and checkpoints. Overridden are

- reading a prompt (`_tokenize_prompts`), generation with one prefill per prompt (`_generate_single_turn`), and
  log-probabilities with one forward per prompt (`_get_per_token_logps_and_entropies`);
- two wrappers that keep the completions of a prompt together with its video (`_generate_and_score_completions`,
  `_compute_loss`);
- resuming: the weights of a checkpoint (`_load_from_checkpoint`), and no step after the last (`_run_epoch`);
- checks that the gradient norm (`_get_grad_norm`) and saved weights (`_save_checkpoint`) are finite.

Each prompt has its own forward and backward. So `per_device_train_batch_size` does not change how many activations are
in memory, and no backward pass runs through two forwards. ZeRO-3 requires the latter: with reentrant gradient
checkpointing, which TRL forces for LoRA, the gradient hook of a parameter runs once per forward, and within one
backward the second gradient replaces the first instead of being added to it.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import set_seed
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from rarft.distributed.collectives import all_gather
from rarft.models.qwen2_5_vl.logprobs import (
    limit_lm_head_to_completions,
    per_completion_logps,
    shared_prefix_logps,
)
from rarft.models.qwen2_5_vl.prefetch import PromptPrefetcher
from rarft.models.qwen2_5_vl.prompt_encoder import video_path
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.rollout import generate, prompts_per_rollout
from rarft.models.qwen2_5_vl.shared_prefix import enable_shared_prefix
from rarft.models.qwen2_5_vl.vision_features import enable_cached_features, encode_video, is_frozen
from rarft.training.divergence import StepGuard, check_weights
from rarft.training.trainer_logging import LoggingGRPOTrainer
from rarft.training.vllm_engine import ColocatedEngine, SamplingGuard, sampling_options
from rarft.video.reader import VideoError
from rarft.video.skipping import SkippedVideos

# Private methods of trl 1.16 that are overridden, and the parameters that the overrides use.
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

MAX_SHARD = "5GB"  # of a weight file, which every store and loader accepts


def check_trl_compat() -> None:
    """Raise a `RuntimeError` if TRL lacks a method, or a parameter of one, that this trainer overrides."""
    for name, required in OVERRIDDEN_METHODS.items():
        method = getattr(GRPOTrainer, name, None)
        missing = required - (inspect.signature(method).parameters.keys() if method else set())
        if missing:
            raise RuntimeError(
                f"trl's GRPOTrainer.{name} lacks {', '.join(sorted(missing))}: this trainer requires trl 1.16; "
                "install the pinned version"
            )


class VideoGRPOTrainer(LoggingGRPOTrainer):
    """GRPO that reads the video of a prompt once, and encodes the prompt once, for all of its completions.

    Args:
        prefetcher: Encodes conversations as model inputs, in advance if they are known.
        guard: Checks the loss and gradient norm of each step.
        arguments: Arguments of `trl.GRPOTrainer`.
    """

    def __init__(self, *, prefetcher: PromptPrefetcher, guard: StepGuard, **arguments: Any) -> None:
        check_trl_compat()
        self._prefetcher, self._guard = prefetcher, guard
        # Prompts of the current rows, one per group; set by whichever override passes rows to TRL.
        self._groups: list[PromptInputs] = []
        args = arguments["args"]
        self._skipped_videos = SkippedVideos(args.max_skipped_videos, "--max_skipped_videos")
        self._unreadable: dict[int, VideoError] = {}  # of the current groups of this rank, by index
        super().__init__(**arguments)
        if self.use_vllm:
            config = self.model.config
            self._engine = ColocatedEngine(self.vllm_generation, sampling_options(args, config), config.video_token_id)
            self._sampling_guard = SamplingGuard(args)
            # The engine samples with the generators of this process, and seeded them itself when it was created. The
            # ranks of one engine must draw the same tokens.
            set_seed(args.seed + self.accelerator.process_index // args.vllm_tensor_parallel_size)
        if not args.use_peft:  # adapters are small, and saved by other code
            save = self.model.save_pretrained
            self.model.save_pretrained = functools.partial(save, max_shard_size=MAX_SHARD)
        self._reuses_vision = is_frozen(self.model)
        reference = [self.accelerator.unwrap_model(self.ref_model)] if self.ref_model is not None else []
        for model in [self.model, *reference]:
            limit_lm_head_to_completions(model)
            if args.prompt_sharing == "on":
                enable_shared_prefix(model)
            if self._reuses_vision:
                enable_cached_features(model)

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        G, device = self._group_size, self.accelerator.device
        self._unreadable = {}
        with self._stopwatch.part("decode"):
            self._groups = [self._read(index, prompt).to(device) for index, prompt in enumerate(prompts[::G])]
        reasons = {video_path(prompts[index * G]): str(error) for index, error in self._unreadable.items()}
        merged = {video: reason for of_rank in all_gather(reasons) for video, reason in of_rank.items()}
        self._skipped_videos.update(merged, is_logged=self.accelerator.is_main_process)
        return [group.input_ids_L.tolist() for group in self._groups for _ in range(G)], None, {}

    def _read(self, index: int, messages: Any) -> PromptInputs:
        """Return the prompt of a group; with a blank clip and zero loss if its video cannot be read.

        So every rank computes the same number of forwards.
        """
        try:
            return self._prefetcher.get(messages)
        except VideoError as error:
            self._unreadable[index] = error
            return self._prefetcher.encoder.placeholder_inputs(messages)

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, **_: Any
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        if self.use_vllm:
            with self._stopwatch.part("rollout"):
                self._engine.sync(self.state.global_step)
                output = self._engine.generate(self._groups, num_generations)
            with self._stopwatch.part("forward"):
                self._encode_videos(self.model)
            return output
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
            self._encode_videos(model)
            for prompts in self._rollout_batches(num_generations):
                completions += generate(model, prompts, num_generations, self.generation_config)
            model.train(was_training)
        return completions, None

    def _encode_videos(self, model: Any) -> None:
        """Run a frozen vision tower once for all passes of the step, and without a backward pass.

        Under gradient checkpointing, transformers makes the embeddings of patches require gradients even in a frozen
        tower, which would then compute them.
        """
        if self._reuses_vision:
            with self.accelerator.autocast():
                self._groups = [encode_video(model, prompt) for prompt in self._groups]

    def _rollout_batches(self, num_generations: int) -> Iterator[list[PromptInputs]]:
        """Yield the prompts, as many at a time as have their caches in memory."""
        length = torch.tensor(max(group.input_ids_L.numel() for group in self._groups), device=self.accelerator.device)
        # The same number on all ranks: with `--ds3_gather_for_generation false` each forward is a collective.
        longest = int(self.accelerator.gather(length).max())
        count = prompts_per_rollout(self.model, longest, num_generations * self.max_completion_length)
        for start in range(0, len(self._groups), count):
            yield self._groups[start : start + count]

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
        logps_of: Any = shared_prefix_logps
        if self.args.prompt_sharing == "off":
            logps_of = functools.partial(per_completion_logps, pad_token_id=self._tokenizer.pad_token_id)
        groups = []  # log-probabilities and entropies
        for index, prompt in enumerate(self._groups):
            rows = slice(index * G, (index + 1) * G)
            ids_GC, mask_GC = input_ids[rows, -logits_to_keep:], attention_mask[rows, -logits_to_keep:]
            with self._stopwatch.part("forward"), self.accelerator.autocast():
                groups.append(logps_of(model, prompt, ids_GC, mask_GC, with_entropy=compute_entropy))
        logps, entropies = zip(*groups, strict=True)
        return torch.cat(logps), torch.cat(entropies) if compute_entropy else None, None

    def _check_groups(self, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int) -> None:
        """Raise a `RuntimeError` unless the rows of each group begin with the prompt that they are scored on."""
        G = input_ids.shape[0] // len(self._groups)
        for index, prompt in enumerate(self._groups):
            P, group = prompt.input_ids_L.numel(), slice(index * G, (index + 1) * G)
            lengths = attention_mask[group, :-logits_to_keep].sum(1)
            rows = input_ids[group, : input_ids.shape[1] - logits_to_keep][:, -P:]
            if not (lengths == P).all() or not (rows == prompt.input_ids_L).all():
                raise RuntimeError(f"group {index} does not match its prompt")

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if differences := self._mode_metrics.get("sampling/sampling_logp_difference/mean"):
            self._sampling_guard.check(differences[-1])
        B, G = output["prompt_ids"].shape[0], self._group_size
        for index in self._unreadable:
            for name in ("completion_mask", "advantages"):
                output[name][index * G : (index + 1) * G] = 0
        # Shape (groups, G, ...), so that TRL shuffles and splits groups together with their videos.
        grouped = {
            name: value.view(B // G, G, *value.shape[1:])
            if isinstance(value, Tensor) and value.ndim and value.shape[0] == B
            else value
            for name, value in output.items()
        }
        return grouped | {"video_prompts": list(self._groups)}

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return the scaled loss of a micro-batch, shape (), summed over its prompts.

        In training the backward of each prompt but the last runs here, before the forward of the next prompt. The
        caller runs the last one; only that part of the loss has a graph. The gradients equal those of one backward
        over all prompts. The tensors of `inputs` have shape (prompts, G, ...).
        """
        prompts = inputs["video_prompts"]
        tokens_P = inputs["completion_mask"].sum((1, 2))
        # TRL normalizes `bnpo` by the tokens of the micro-batch. The other losses are means over completions, or sums
        # over `num_items_in_batch`, of which each prompt gets its part.
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
            runs_backward = self.model.training and index < len(prompts) - 1
            with self._accumulating(model) if runs_backward else contextlib.nullcontext():
                loss = weights_P[index] * super()._compute_loss(model, rows)
                if runs_backward:
                    # The loss is scaled for accumulation already. DeepSpeed must not scale it again.
                    self.accelerator.backward(loss, **({"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}))
                    loss = loss.detach()
            total = total + loss
        self._merge_token_means(tokens_P)
        return total

    @contextlib.contextmanager
    def _accumulating(self, model: Any) -> Iterator[None]:
        """Accumulate gradients: the optimizer does not step, and DDP does not synchronize them."""
        sync_gradients = self.accelerator.sync_gradients
        self.accelerator.sync_gradients = False
        try:
            # DeepSpeed honors `sync_gradients`; its own `no_sync` does not support ZeRO.
            with contextlib.nullcontext() if self.is_deepspeed_enabled else self.accelerator.no_sync(model):
                yield
        finally:
            self.accelerator.sync_gradients = sync_gradients

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # `_tr_loss` is the sum of the losses since the last log entry.
        self._guard.check(self.state.global_step + 1, self._tr_loss, norm)
        return norm

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        check_weights(self.model, self.state.global_step)
        super()._save_checkpoint(*arguments, **options)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights that training resumes from, if DeepSpeed does not load them.

        transformers does not rename the weights of a checkpoint, as `from_pretrained` does. For Qwen2.5-VL it would
        find none of them, warn, and continue with the weights in memory.
        """
        model = self.model if model is None else model
        if self.is_deepspeed_enabled or self.args.use_peft:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = type(model).from_pretrained(resume_from_checkpoint, dtype=model.dtype)
        model.load_state_dict(saved.state_dict())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the number of skipped videos."""
        if self._mode_metrics and self.model.training:
            self._mode_metrics["videos/skipped"] = [len(self._skipped_videos)]
        super().log(logs, start_time)

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """Run an epoch, unless the checkpoint that the run resumes from was its last, which transformers ignores."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*arguments, **options)
