"""Run training: prepare, resume, build, fit, finalize."""

import contextlib
import functools
import logging
from typing import Any

from accelerate import PartialState

from rarft.checkpoint.local import FINAL, is_complete, list_checkpoints
from rarft.checkpoint.resume import AUTO, NONE, ResumeResolver, mark_finished
from rarft.checkpoint.uploader import CheckpointUploader, UploadTask
from rarft.distributed.collectives import is_shared_folder, run_on_main
from rarft.errors import EXIT_PREEMPTED, DivergedError, InputError, input_name
from rarft.training.build import ResumePoint, TrainingSession, build_session
from rarft.training.divergence import check_weights, exclude_diverged
from rarft.training.model import save_final
from rarft.training.prepare import PreparedRun, prepare_run
from rarft.training.reshard import reshard_if_needed
from rarft.training.run_dir import is_run_finished, upload_final
from rarft.training.run_identity import find_difference
from rarft.training.tracking import wandb_run

logger = logging.getLogger(__name__)


def train(arguments: list[str]) -> str:
    """Train with flags of `rarft train`, and save `OUT/checkpoints/EXP_NAME/checkpoint-final` and training curves.

    Returns:
        Path or URI of the final checkpoint, a Hugging Face folder with its processor.

    Raises:
        InputError: Settings, data or model are invalid. Most checks run before the model is loaded.
        RuntimeError: Training failed, or checkpoints could not be uploaded.
        DivergedError: A loss, a gradient norm or a weight was not finite. The good checkpoints remain.
        SystemExit: With code 75, if SIGTERM stopped training after a checkpoint was saved.
    """
    run = prepare_run(arguments)
    final = str(run.paths.location.child(FINAL))
    with contextlib.ExitStack() as stack:
        run_on_main(stack.enter_context, run.paths.lock())
        if run.resume_from == AUTO and run_on_main(is_run_finished, run.paths, run.fingerprint):
            _log_on_main("%s is already finished; use a new --exp_name to retrain", run.name)
            return final
        resume_point = prepare_resume(run)
        if resume_point.uploader:
            stack.push(resume_point.uploader.close_on_exit)
        session = build_session(run, resume_point)
        stack.callback(session.preemption.close)  # also after an error
        if "wandb" in run.args.report_to and PartialState().is_main_process:
            stack.enter_context(wandb_run(run.paths.local, run.args.run_name or run.name))
        fit(run, resume_point, session)
        if not session.preemption.stopped:
            finalize(run, resume_point, session)
    if session.preemption.stopped:
        _log_on_main("stopped at step %d on SIGTERM; rerun to resume", session.trainer.state.global_step)
        session.trainer.accelerator.wait_for_everyone()  # a launcher kills the remaining ranks once one exits
        raise SystemExit(EXIT_PREEMPTED)
    if misses := run.references.misses:
        _log_on_main("%d reference queries had no precomputed embedding and were encoded during training", misses)
    return final


def _log_on_main(message: str, *values: Any) -> None:
    if PartialState().is_main_process:
        logger.info(message, *values)


def prepare_resume(run: PreparedRun) -> ResumePoint:
    """Choose the checkpoint to resume from, and start the uploader.

    Raises:
        InputError: The run cannot resume, or needs an object store. It is raised on every process.
    """
    paths, requested = run.paths, run.resume_from
    is_shared = is_shared_folder(paths.local)
    if not is_shared and paths.store is None:
        raise InputError(
            f"--out {paths.out}: the machines do not share this folder; use a shared one, or s3://BUCKET/PREFIX"
        )
    find_setting_difference = functools.partial(find_difference, run.resume_key)
    with input_name("--out" if requested in (None, AUTO, NONE) else "--resume_from_checkpoint"):
        checkpoint = ResumeResolver(requested, paths.local, paths.store, is_shared, find_setting_difference).resolve()
    callbacks = reshard_if_needed(run.args, checkpoint, is_shared) if checkpoint else []
    uploader = None
    state = PartialState()
    if paths.store and (state.is_main_process if is_shared else state.is_local_main_process):  # one per folder
        uploader = CheckpointUploader(paths.store, paths.local, run.args.save_total_limit)
        if is_shared:
            for left in filter(is_complete, reversed(list_checkpoints(paths.local))):  # by a killed run
                uploader.submit(UploadTask(left))
    return ResumePoint(checkpoint, is_shared, callbacks, uploader)


def fit(run: PreparedRun, resume_point: ResumePoint, session: TrainingSession) -> None:
    """Train until the last step, or until the first save boundary after SIGTERM."""
    trainer = session.trainer
    try:
        trainer.train(resume_from_checkpoint=str(resume_point.checkpoint) if resume_point.checkpoint else None)
        if not session.preemption.stopped:
            check_weights(trainer.model, trainer.state.global_step)
    except DivergedError as error:
        session.log.on_train_end(run.args, trainer.state, trainer.control)  # curves up to the last finite step
        advice = exclude_diverged(run.paths.local, run.paths.store, resume_point.is_shared, resume_point.uploader)
        raise DivergedError(f"{error}; lower --learning_rate or check the data, then {advice}") from error


def finalize(run: PreparedRun, resume_point: ResumePoint, session: TrainingSession) -> None:
    """Save the final checkpoint, complete the uploads, and mark the run as finished."""
    paths = run.paths
    session.checkpoints.confirm(paths.local)  # no later step will confirm it; fit() checked its weights
    save_final(session.trainer, session.checkpoints.prompt_config, run.resume_key, paths.local, run.samples)
    if resume_point.uploader:
        resume_point.uploader.close()
    if PartialState().is_main_process:
        mark_finished(paths.local, run.fingerprint)
        if paths.store:
            upload_final(paths.local, paths.store)
