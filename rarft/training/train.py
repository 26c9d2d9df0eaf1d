"""A training run: from settings and validated data to `checkpoint-final`."""

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import AutoConfig, PrinterCallback, TrainerCallback, enable_full_determinism, set_seed

from rarft.annotations.schema import Sample, read_samples
from rarft.checkpoint import remote
from rarft.checkpoint.local import CHECKPOINT_JSON, DONE, FINAL, checkpoints_of, is_complete, remove_temp_files
from rarft.checkpoint.locate import checkpoint_path
from rarft.checkpoint.resume import AUTO, Resume, is_done, mark_done
from rarft.checkpoint.uploader import CheckpointUploader, UploadTask
from rarft.distributed.collectives import barrier, broadcast_from_main, folder_is_shared, is_local_main_process
from rarft.embeddings.encoder import SentenceEncoder
from rarft.embeddings.store import ReferenceStore
from rarft.errors import EXIT_PREEMPTED, DivergedError, InputError, input_name
from rarft.models.qwen2_5_vl.load import download_checkpoint, load_processor
from rarft.models.qwen2_5_vl.prefetch import PromptPrefetcher
from rarft.models.qwen2_5_vl.prompt_check import check_prompts
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.models.qwen2_5_vl.rollout import vision_token_ids
from rarft.prompts import load_prompt_template
from rarft.reporting.training_log import TRAINING_HTML, TRAINING_JSONL
from rarft.rewards.columns import RewardFunction
from rarft.rewards.registry import resolve_rewards
from rarft.storage import s3
from rarft.storage.files import LOCK, join_path, local_path, lock_folder, make_folder
from rarft.storage.location import parse_location
from rarft.storage.sync import upload_folder
from rarft.training import config as configuration
from rarft.training.callbacks import CheckpointCallback, JsonlLogCallback, ProgressCallback, SetEpochCallback
from rarft.training.config import TrainingConfig
from rarft.training.curriculum import Curriculum
from rarft.training.data import TrainingDataset, dataset, filter_trainable, pools_of
from rarft.training.deepspeed_config import prepare_deepspeed
from rarft.training.divergence import StepGuard, check_weights, leave_good_checkpoints
from rarft.training.model import load_policy, lora_config, save_final
from rarft.training.preemption import PreemptionCallback
from rarft.training.preflight import check_prompt_lengths, check_settings, experiment_name, lora_rate_warning
from rarft.training.reshard import ReseedCallback, UnshareAdamStepCallback, convert, load_converted, ranks_of
from rarft.training.run_identity import identity, run_fingerprint
from rarft.training.tracking import wandb_run
from rarft.training.trainer import VideoGRPOTrainer
from rarft.video.cache import FrameCache
from rarft.video.decode import read_frames


def _read_data(settings: dict[str, Any]) -> tuple[list[Sample], list[Sample]]:
    """Samples to train on, and samples to evaluate on during training, if any."""
    with input_name("--train_data_path"):
        read = read_samples(settings["train_data_path"])
    samples = filter_trainable(read)
    if left_out := len(read) - len(samples):
        print(f"training: {left_out} of {len(read)} queries left out, their duration is not known", flush=True)
    if not settings["eval_data_path"]:
        return samples, []
    with input_name("--eval_data_path"):
        return samples, filter_trainable(read_samples(settings["eval_data_path"]))


def _load_references(settings: dict[str, Any]) -> ReferenceStore:
    with input_name("--encoder"):
        encoder = SentenceEncoder(settings["encoder"])
    if not settings["embeddings"]:
        return ReferenceStore.empty(encoder)
    with input_name("--embeddings"):
        return ReferenceStore.load(parse_location(settings["embeddings"]), encoder)


def _prompt_encoder(args: TrainingConfig, processor: Any, model_config: Any, reading: PromptConfig) -> PromptEncoder:
    read = read_frames
    if args.frame_cache:
        read = FrameCache(Path(args.frame_cache), args.frame_cache_gb * 1e9).read
    return PromptEncoder(processor, model_config, reading.sampling, read, keep_frames=args.use_vllm)


def _build_trainer(
    args: TrainingConfig,
    rows: TrainingDataset,
    eval_samples: list[Sample],
    rewards: list[RewardFunction],
    reading: PromptConfig,
    callbacks: list[TrainerCallback],
    guard: StepGuard,
) -> VideoGRPOTrainer:
    """Load the model and put the trainer together.

    Raises:
        InputError: a prompt is too long, the model cannot be loaded, or settings do not go together.
    """
    with input_name("--model_name_or_path"):
        processor = load_processor(args.model_name_or_path)
    model_config = AutoConfig.from_pretrained(checkpoint_path(args.model_name_or_path))
    encoder = _prompt_encoder(args, processor, model_config, reading)
    with input_name("--model_name_or_path"):
        check_prompts(rows.all_samples, encoder, reading.prompt, args.model_name_or_path)
    check_prompt_lengths([*rows.all_samples, *eval_samples], encoder, reading.prompt, args.max_prompt_length)
    # This rank's prompts of the steps that are drawn at a time, and those of the next.
    batches = max(args.steps_per_generation, args.gradient_accumulation_steps)
    reader = PromptPrefetcher(encoder, args.decode_workers, 2 * args.prompts_per_device * (batches + 1))
    rows.on_draw = reader.prefetch

    args.generation_kwargs = {**(args.generation_kwargs or {}), "suppress_tokens": vision_token_ids(model_config)}
    # Rows are stratified already, and stay as they were laid out.
    args.shuffle_dataset = False
    args.disable_tqdm = True
    if args.ddp_find_unused_parameters is None and (args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        args.ddp_find_unused_parameters = False  # DDP fails to search for them under reentrant checkpointing
    try:
        trainer = VideoGRPOTrainer(
            prompt_reader=reader,
            guard=guard,
            model=load_policy(args),
            reward_funcs=rewards,
            args=args,
            train_dataset=rows.dataset(),
            eval_dataset=dataset(eval_samples, reading.prompt) if eval_samples else None,
            processing_class=processor,
            peft_config=lora_config(args),
            callbacks=callbacks,
        )
    except ValueError as error:  # settings that only trl can tell do not go together
        raise InputError(" ".join(str(error).split())) from error
    trainer.remove_callback(PrinterCallback)  # whole log entries; they are in the log
    return trainer


_STORE = ".store"  # file in a run's folder that says which store its checkpoints go to


@dataclass(frozen=True)
class _RunPaths:
    """Where a run's files go.

    Attributes:
        run: its folder on this machine.
        store: its folder in an object store, if `--out` lies in one.
        depth: folders of `run` that are the run's own: `checkpoints` and the parts of its name.
    """

    run: Path
    store: str | None
    depth: int

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "_RunPaths":
        """Where the settings put them; nothing is made yet."""
        name = Path("checkpoints") / experiment_name(settings)
        out = settings["out"]
        in_store = s3.is_object_uri(out)
        run = local_path(settings["scratch"] if in_store else out, "--scratch" if in_store else "--out") / name
        return cls(run, join_path(out, name.as_posix()) if in_store else None, len(name.parts))

    def make(self, out: str) -> None:
        """Make both, and make sure that they can be written to and that `run` is not another store's.

        Raises:
            InputError: one cannot, or it is.
        """
        make_folder(self.run)
        if self.store:
            make_folder(out)
        here = (self.run / _STORE).read_text(encoding="utf-8") if (self.run / _STORE).exists() else ""
        if here != (out if self.store else "") and checkpoints_of(self.run):
            raise InputError(
                f"{self.run} holds checkpoints of a run with --out {here or self.run}; give another --scratch or "
                "--exp_name"
            )


def _upload_final(places: _RunPaths) -> None:
    """Send the final checkpoint, what lies beside it, and the mark of the end, in this order.

    Raises:
        RuntimeError: the store cannot be written to; all of it lies here, and starting again sends it.
    """
    try:
        _send_files_of_the_end(places)
    except s3.StoreError as error:
        raise RuntimeError(f"{places.run / FINAL} is whole, and starting again sends it: {error}") from error


def _send_files_of_the_end(places: _RunPaths) -> None:
    assert places.store is not None
    upload_folder(places.run / FINAL, join_path(places.store, FINAL), CHECKPOINT_JSON, remote.WHAT)
    names = (TRAINING_JSONL, TRAINING_HTML, "completions/*")
    files = [path for name in names for path in sorted(places.run.glob(name)) if path.is_file()]
    s3.upload(
        [(join_path(places.store, path.relative_to(places.run).as_posix()), path) for path in files], remote.WHAT
    )
    s3.upload([(join_path(places.store, DONE), places.run / DONE)], remote.WHAT)


def _remove_empty_run_dir(places: _RunPaths, kind: type[BaseException] | None, *_: object) -> None:
    """As the exit of a `with`: a run that was refused leaves no empty folders."""
    if kind is None or not issubclass(kind, InputError):
        return
    if {path.name for path in places.run.iterdir()} <= {LOCK, _STORE}:
        for name in (LOCK, _STORE):
            (places.run / name).unlink(missing_ok=True)
        for folder in [places.run, *places.run.parents][: places.depth]:
            with contextlib.suppress(OSError):  # other runs are there
                folder.rmdir()


def _lock_run_dir(places: _RunPaths, out: str, held: contextlib.ExitStack) -> None:
    """Keep other processes from training into the same folder, for as long as `held` is, and tidy it up.

    Raises:
        InputError: one does; on every process alike.
    """
    refusal = None
    if PartialState().is_main_process:
        held.push(functools.partial(_remove_empty_run_dir, places))
        try:
            held.enter_context(lock_folder(places.run, "--exp_name"))
            remove_temp_files(places.run)
            (places.run / _STORE).write_text(out if places.store else "", encoding="utf-8")
        except InputError as error:
            refusal = str(error)
    if refusal := broadcast_from_main(refusal):
        raise InputError(refusal)


def _reshard_if_needed(args: TrainingConfig, checkpoint: Path, shared: bool) -> list[TrainerCallback]:
    """Make a checkpoint of another number of ranks one that these can load; returns what that takes in training."""
    state = PartialState()
    saved = ranks_of(checkpoint)
    if saved == state.num_processes:
        return []
    if state.is_main_process:
        print(f"training: saved by {saved} rank(s), now {state.num_processes}: other random numbers", flush=True)
    if args.deepspeed:
        if state.is_main_process or (is_local_main_process() and not shared):
            convert(checkpoint)
        barrier()
        load_converted(args)
    return [ReseedCallback(), *([UnshareAdamStepCallback()] if args.deepspeed else [])]


def _is_done(places: _RunPaths, whole: dict[str, Any]) -> bool:
    """Whether this very run has ended well before; what of its end is here and not yet in the store is sent."""
    done = False
    if PartialState().is_main_process:
        done = is_done(places.store or places.run, whole)
        if not done and places.store and is_done(places.run, whole):
            _upload_final(places)
            done = True
    return bool(broadcast_from_main(done))


def _uploads(places: _RunPaths, shared: bool, most: int | None) -> CheckpointUploader | None:
    """Sends checkpoints, on one process of each machine that holds some; first what a killed run had not sent."""
    if places.store is None or not (is_local_main_process() if not shared else PartialState().is_main_process):
        return None
    uploads = CheckpointUploader(places.store, places.run, most)
    for left in reversed(checkpoints_of(places.run)) if shared else ():
        if is_complete(left):
            uploads.send(UploadTask(left))
    return uploads


def train(arguments: list[str]) -> str:
    """Train, and write `OUT/checkpoints/EXP_NAME/checkpoint-final` and its curves.

    Args:
        arguments: the flags of `rarft train`.

    Returns:
        The final checkpoint, a Hugging Face folder with its processor: its path, or its URI.

    Raises:
        InputError: settings, data or model that cannot be used, as far as possible before the model is loaded.
        RuntimeError: training failed, or its checkpoints could not be sent to the store.
        DivergedError: a loss, a gradient norm or weights were not finite; the good checkpoints are left.
        SystemExit: it was told to stop, and stopped with a complete checkpoint.
    """
    settings = configuration.parse(arguments)
    if settings["full_determinism"]:
        # It sets environment variables that CUDA and cuBLAS read once, when they are first used.
        enable_full_determinism(settings["seed"])
    check_settings(settings)
    name = experiment_name(settings)
    template = load_prompt_template(settings["prompt_type"])
    samples, eval_samples = _read_data(settings)
    # Before the configuration, which may set up DeepSpeed: ZeRO-3 would partition the encoder.
    references = _load_references(settings)
    rewards = resolve_rewards(settings["reward_funcs"], references, settings["correction_baseline"])
    places = _RunPaths.of(settings)
    model, asked = settings["model_name_or_path"], settings["resume_from_checkpoint"]
    whole = run_fingerprint(settings, samples, template)
    with input_name("--model_name_or_path"):
        settings["model_name_or_path"] = download_checkpoint(model, local_path(settings["scratch"], "--scratch"))
    if settings["deepspeed"] not in (None, "none"):
        prepare_deepspeed(settings["use_cpu"])
    args = configuration.build(settings, places.run)
    places.make(settings["out"])
    set_seed(args.seed)
    if (warning := lora_rate_warning(settings)) and PartialState().is_main_process:
        print(f"training: {warning}", flush=True)
    common = identity(args, model, samples, template)
    where = places.store or places.run
    with contextlib.ExitStack() as held:
        _lock_run_dir(places, settings["out"], held)
        if asked == AUTO and _is_done(places, whole):
            print(f"training: {name} is done already; another --exp_name would train anew", flush=True)
            return join_path(where, FINAL)
        shared = folder_is_shared(places.run)
        if not shared and places.store is None:
            raise InputError(
                f"--out {settings['out']}: each machine has a folder of its own there; give one that all of them "
                "share, or s3://BUCKET/PREFIX"
            )
        resumed = Resume(asked, places.run, places.store, shared, common).checkpoint()
        reshard_callbacks = _reshard_if_needed(args, resumed, shared) if resumed else []
        uploads = _uploads(places, shared, args.save_total_limit)
        if uploads:
            held.push(uploads.close_after)
        sampling = args.sampling
        reading = PromptConfig(
            template, sampling.fps, sampling.total_pixels, sampling.min_frame_pixels, args.max_completion_length
        )
        pools = pools_of(samples, args.queries_per_item, args.refusable_pool)
        curriculum = Curriculum(pools, references.similarities) if args.curriculum else None
        rows = TrainingDataset(pools, template, args.seed, args.prompts_per_generation, curriculum)
        if PartialState().is_main_process:
            print(f"training: {rows.summary()}", flush=True)
        guard = StepGuard(args.fp16)
        checkpoints = CheckpointCallback(reading, common, args.save_total_limit, resumed, shared, uploads, guard)
        args.save_total_limit, args.resume_from_checkpoint = None, None  # ours count complete checkpoints alone
        boundaries = PreemptionCallback()
        log = JsonlLogCallback(places.run, name)
        callbacks = [*reshard_callbacks, ProgressCallback(), log, SetEpochCallback(rows), boundaries, checkpoints]
        trainer = _build_trainer(args, rows, eval_samples, rewards, reading, callbacks, guard)
        if "wandb" in args.report_to and trainer.accelerator.is_main_process:
            held.enter_context(wandb_run(places.run, args.run_name or name))
        try:
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
            if not boundaries.stopped:
                check_weights(trainer.model, trainer.state.global_step)
        except DivergedError as error:
            log.on_train_end(args, trainer.state, trainer.control)  # curves up to the last finite step
            left = leave_good_checkpoints(places.run, places.store, shared, uploads)
            raise DivergedError(f"{error}; lower --learning_rate or check the data, then {left}") from error
        if not boundaries.stopped:
            checkpoints.confirm(places.run)  # no step comes after the last: its weights were finite
            save_final(trainer, reading, common, places.run)
            if uploads:
                uploads.close()
            if trainer.accelerator.is_main_process:
                mark_done(places.run, whole)
                if places.store:
                    _upload_final(places)
    if boundaries.stopped:
        print(f"training: stopped at step {trainer.state.global_step}, as told; start again to go on", flush=True)
        trainer.accelerator.wait_for_everyone()  # a launcher kills the others once one has ended
        raise SystemExit(EXIT_PREEMPTED)
    if references.misses:
        print(f"training: {references.misses} reference queries were not precomputed and were encoded", flush=True)
    return join_path(where, FINAL)
