"""The pipeline: fingerprint -> convert -> validate -> negatives -> embed -> train -> evaluate -> promote."""

from typing import Any, NamedTuple

from kfp import dsl

from components.images import STEPS_IMAGE, VALIDATE_IMAGE
from pipelines.profiles import DEFAULT_PROFILE, PROFILES, Profile
from pipelines.tasks import Tasks


class Outputs(NamedTuple):
    """Outputs of a run: checkpoint, validated data of both files, evaluation results, gates, release location."""

    checkpoint: str
    data: dsl.Dataset
    eval_data: dsl.Dataset
    results: dsl.Artifact
    passed: bool
    promoted: str


def _connect(tasks: Tasks) -> Outputs:
    """Create all tasks and connect them."""
    fingerprinted = tasks.fingerprint()
    converted = tasks.convert(fingerprinted)
    validated = tasks.validate(fingerprinted, converted)
    completed = tasks.negatives(fingerprinted, validated)
    embedded = tasks.embed(fingerprinted, completed)
    trained = tasks.train(fingerprinted, completed, embedded)
    evaluated = tasks.evaluate(fingerprinted, validated, trained)
    promoted = tasks.promote(trained, evaluated)
    return Outputs(
        checkpoint=trained.outputs["checkpoint"],
        data=validated.outputs["data"],
        eval_data=validated.outputs["eval_data"],
        results=evaluated.outputs["results"],
        passed=evaluated.outputs["passed"],
        promoted=promoted.output,
    )


def build(profile: Profile) -> Any:
    """Return the pipeline for a compile-time profile."""

    @dsl.pipeline(
        name="rarft",
        description="Refusal-aware reinforcement fine-tuning of Qwen2.5-VL for video temporal grounding.",
        pipeline_config=dsl.PipelineConfig(
            active_deadline_seconds=profile.run_hours * 3600, ttl_seconds_after_finished=profile.kept_hours * 3600
        ),
    )
    def rarft_pipeline(
        annotations: str,
        output_uri: str,
        video_root: str = "",
        eval_annotations: str = "",
        eval_video_root: str = "",
        format: str = "riq",
        durations: str = "",
        max_quarantine: str = "",
        probe: str = "decode",
        video_fps: float = 2.0,
        crop_times: str = "auto",
        negatives: str = "",
        encoder: str = "",
        training: str = "preset: tiny",
        compare: str = "",
        gates: str = "",
        max_skipped_videos: int = 10,
        final_uri: str = "",
        validate_image: str = VALIDATE_IMAGE,
        steps_image: str = STEPS_IMAGE,
        train_image: str = STEPS_IMAGE,
        cpu: str = "2",
        memory: str = "8Gi",
        train_cpu: str = "4",
        train_memory: str = "16Gi",
        train_disk: str = "640Gi",
        accelerator: str = "nvidia.com/gpu",
        accelerators: str = "0",
        processes: int = 0,
        nodes: int = 2,
        queue: str = "",
        priority_class: str = "",
        node_selector: dict = {},  # noqa: B006 - Kubeflow reads defaults in this form
        tolerations: list = [],  # noqa: B006
        affinity: dict = {},  # noqa: B006
        store_secret: str = "rarft-store",
        hub_secret: str = "rarft-hub",
        tracking_secret: str = "rarft-wandb",
        model_secret: str = "rarft-model",
        pvc_name: str = "rarft-data",
    ) -> Outputs:
        """Convert, validate, encode reference queries, train with GRPO, compare with the base model, promote.

        Args:
            annotations: Path or URI of the training annotations, a JSON list or JSON Lines.
            output_uri: Path or URI for checkpoints.
            video_root: Folder of the videos; empty for the folder of the annotations.
            eval_annotations: Held-out annotations; empty to evaluate on the training data, labeled as in-sample.
            eval_video_root: Folder of the held-out videos; empty for `video_root`.
            format: Format of the annotations; auto to recognize it, or riq if there is nothing to convert.
            durations: File with the durations of videos, for a format without them; empty for none.
            max_quarantine: Limit of quarantined queries per file, such as 5% or 120; empty for no limit.
            probe: How validation reads videos: decode, header or none.
            video_fps: Frames per second that validation decodes; set it as in `training`.
            crop_times: What times of RIQ items with a crop count from: absolute, relative to the crop, or auto.
            negatives: Flags of `rarft negatives` as YAML, to add queries to the training data; empty for none.
            encoder: Name or folder of a SentenceTransformer; empty for all-MiniLM-L6-v2.
            training: Flags of `rarft train` as YAML.
            compare: Checkpoints or predictions to compare with, next to the base; comma-separated [NAME=]CHECKPOINT.
            gates: Conditions for promotion, one per line, such as ra_iou.mean>=base.
            max_skipped_videos: Number of unreadable videos that evaluation skips; for training, set it in `training`.
            final_uri: Release location for a checkpoint that passes the gates; empty to skip promotion.
            validate_image: Image of the steps that do not need torch.
            steps_image: Image of the other steps without accelerators.
            train_image: Image of training and evaluation; use rarft-train on GPUs.
            cpu: CPUs of a step without accelerators.
            memory: Memory of a step without accelerators.
            train_cpu: CPUs of training and of evaluation, per node.
            train_memory: Memory of training and of evaluation per node, including shared memory.
            train_disk: Disk space of training per node; only with the profiles `trainjob` and `pytorchjob`.
            accelerator: Resource name of the GPUs.
            accelerators: Number of GPUs for training and evaluation, per node; 0 for none.
            processes: Processes of training and of evaluation, per node; 0 for one per GPU.
            nodes: Number of nodes for training; only with the profiles `trainjob` and `pytorchjob`, as the next two.
            queue: Kueue's local queue for the job; empty for none.
            priority_class: PriorityClass of the job's pods; empty for the cluster's default.
            node_selector: Labels of the nodes for training and evaluation.
            tolerations: Taints that training and evaluation tolerate.
            affinity: Node affinity of training and evaluation.
            store_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION.
            hub_secret: Secret with HF_TOKEN.
            tracking_secret: Secret with WANDB_API_KEY.
            model_secret: Secret with OPENAI_API_KEY, for the model of `negatives`.
            pvc_name: PersistentVolumeClaim to mount at /data; only with the profile `pvc`.

        Returns:
            The trained checkpoint, the validated data, the evaluation results, whether the gates were passed, and the
            release location.
        """
        return _connect(Tasks(profile, locals()))

    return rarft_pipeline


rarft_pipeline = build(PROFILES[DEFAULT_PROFILE])
