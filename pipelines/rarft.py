"""The pipeline: validate -> embed -> train -> evaluate -> promote; one definition for all places that it runs in."""

from typing import Any, NamedTuple

from kfp import dsl

from components.embed.component import embed
from components.evaluate.component import evaluate
from components.fingerprint.component import fingerprint
from components.images import STEPS_IMAGE, VALIDATE_IMAGE
from components.launch_pytorchjob.component import launch_pytorchjob
from components.promote.component import promote
from components.train.component import train
from components.validate.component import validate
from pipelines.placement import place, with_accelerators, with_hub, with_time_limit, with_tracking, without_accelerator
from pipelines.profiles import DEFAULT_PROFILE, PROFILES, Profile


class Outputs(NamedTuple):
    """What a run leaves: the checkpoint, the validated data of both files, the evaluation's results and verdict."""

    checkpoint: str
    data: dsl.Dataset
    eval_data: dsl.Dataset
    results: dsl.Artifact
    passed: bool
    promoted: str


def build(profile: Profile) -> Any:
    """The pipeline with what is decided when it is compiled."""

    @dsl.pipeline(
        name="rarft",
        description="Refusal-aware reinforcement fine-tuning of Qwen2.5-VL for video temporal grounding.",
    )
    def rarft_pipeline(
        annotations: str,
        output_uri: str,
        video_root: str = "",
        eval_annotations: str = "",
        eval_video_root: str = "",
        max_quarantine: str = "",
        encoder: str = "",
        training: str = "preset: tiny",
        also_evaluate: str = "",
        gates: str = "",
        final_uri: str = "",
        validate_image: str = VALIDATE_IMAGE,
        steps_image: str = STEPS_IMAGE,
        train_image: str = STEPS_IMAGE,
        cpu: str = "2",
        memory: str = "8Gi",
        train_cpu: str = "4",
        train_memory: str = "16Gi",
        accelerator: str = "nvidia.com/gpu",
        accelerators: str = "0",
        processes: int = 0,
        nodes: int = 2,
        queue: str = "",
        priority_class: str = "",
        node_selector: dict = {},  # noqa: B006 - the form that Kubeflow reads a default from
        tolerations: list = [],  # noqa: B006
        affinity: dict = {},  # noqa: B006
        store_secret: str = "rarft-store",
        hub_secret: str = "rarft-hub",
        tracking_secret: str = "rarft-wandb",
        claim: str = "rarft-data",
    ) -> Outputs:
        """Validate annotations, encode their reference queries, train by GRPO, evaluate base against trained, promote.

        Args:
            annotations: Path or URI of the training annotations, a JSON list or JSON Lines.
            output_uri: Where checkpoints go, a path or URI.
            video_root: Folder that the videos lie in; empty for the folder of the annotations.
            eval_annotations: Held-out annotations; empty to evaluate on the training data, labelled so.
            eval_video_root: Folder that the held-out videos lie in; empty for `video_root`.
            max_quarantine: Most queries of a file that may be quarantined, such as 5% or 120; empty for any number.
            encoder: SentenceTransformer name or folder; empty for all-MiniLM-L6-v2.
            training: Flags of `rarft train` as one YAML text.
            also_evaluate: A third checkpoint to show beside the trained one and its base; empty for none.
            gates: What the checkpoint must reach to be shipped, one a line, such as ra_iou.mean>=base.
            final_uri: Where a checkpoint that passes them is copied to, with its metrics; empty to leave it.
            validate_image: Image of the steps that need no torch.
            steps_image: Image of the other steps without an accelerator.
            train_image: Image of training and evaluation; on GPUs rarft-train.
            cpu: CPUs of a step without an accelerator.
            memory: Memory of a step without an accelerator.
            train_cpu: CPUs of training and evaluation.
            train_memory: Memory of training and evaluation, the shared memory included.
            accelerator: Resource that the GPU nodes offer.
            accelerators: How many of them training and evaluation each get; 0 for none.
            processes: How many work together in training and in evaluation; 0 for one a GPU.
            nodes: Machines that train, if compiled with the profile `pytorchjob`; likewise the next two.
            queue: Kueue's local queue that the job waits in; empty for none.
            priority_class: PriorityClass of the job's pods; empty for the cluster's default.
            node_selector: Labels of the nodes that train and evaluate.
            tolerations: Taints that these two steps tolerate.
            affinity: Node affinity of these two steps.
            store_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION.
            hub_secret: Secret with HF_TOKEN.
            tracking_secret: Secret with WANDB_API_KEY.
            claim: PersistentVolumeClaim that each step mounts at /data, if compiled with the profile `claim`.

        Returns:
            The trained checkpoint, the validated data, the evaluation's results, whether the gates were passed, and
            where the checkpoint was promoted to.
        """
        where = (node_selector, tolerations, affinity)
        seen = fingerprint(
            annotations=annotations,
            video_root=video_root,
            eval_annotations=eval_annotations,
            eval_video_root=eval_video_root,
            encoder=encoder,
            also_evaluate=also_evaluate,
            gates=gates,
            output_uri=output_uri,
            final_uri=final_uri,
        )
        seen.set_caching_options(False)  # looking is its work
        validated = validate(
            annotations=annotations,
            video_root=video_root,
            eval_annotations=eval_annotations,
            eval_video_root=eval_video_root,
            max_quarantine=max_quarantine,
            content=seen.outputs["content"],
        )
        embedded = embed(data=validated.outputs["data"], encoder=encoder, content=seen.outputs["content"])
        inputs = {
            "data": validated.outputs["data"],
            "embeddings": embedded.outputs["embeddings"],
            "encoder": encoder,
            "training": training,
            "output_uri": output_uri,
            "videos": seen.outputs["videos"],
            "accelerators": accelerators,
            "processes": processes,
        }
        if profile.job:
            trained = launch_pytorchjob(
                **inputs,
                job=f"rarft-{dsl.PIPELINE_JOB_ID_PLACEHOLDER}",
                image=train_image,
                nodes=nodes,
                accelerator=accelerator,
                cpu=train_cpu,
                memory=train_memory,
                node_selector=node_selector,
                tolerations=tolerations,
                affinity=affinity,
                queue=queue,
                priority_class=priority_class,
                store_secret=store_secret,
                hub_secret=hub_secret,
                tracking_secret=tracking_secret,
            )
        else:
            trained = train(**inputs)
        trained.set_caching_options(False)  # it goes on from its own checkpoints, or finds that it is done
        evaluated = evaluate(
            checkpoint=trained.outputs["checkpoint"],
            base=trained.outputs["base"],
            also_evaluate=also_evaluate,
            data=validated.outputs["eval_data"],
            encoder=encoder,
            in_sample=validated.outputs["in_sample"],
            gates=gates,
            content=seen.outputs["content"],
            checkpoint_content=trained.outputs["content"],
            third_content=seen.outputs["third"],
            accelerators=accelerators,
            processes=processes,
        )
        promoted = promote(
            checkpoint=trained.outputs["checkpoint"],
            results=evaluated.outputs["results"],
            passed=evaluated.outputs["passed"],
            final_uri=final_uri,
        )
        promoted.set_caching_options(False)  # what it copied may have been removed since
        for task, image in (
            (seen, validate_image), (validated, validate_image), (embedded, steps_image), (promoted, steps_image)
        ):  # fmt: skip
            place(task, profile, image, cpu, memory, store_secret, claim)
            without_accelerator(task, profile, profile.step_seconds)
        on_accelerators = [(evaluated, profile.evaluation_seconds)]
        if profile.job:
            place(trained, profile, steps_image, cpu, memory, store_secret, claim)
            with_time_limit(trained, profile.training_seconds)
        else:
            on_accelerators.append((trained, profile.training_seconds))
            with_tracking(trained, tracking_secret)
        for task, seconds in on_accelerators:
            place(task, profile, train_image, train_cpu, train_memory, store_secret, claim)
            with_accelerators(task, profile, seconds, accelerator, accelerators, where)
        for task in (embedded, trained, evaluated):
            with_hub(task, hub_secret)
        return Outputs(
            checkpoint=trained.outputs["checkpoint"],
            data=validated.outputs["data"],
            eval_data=validated.outputs["eval_data"],
            results=evaluated.outputs["results"],
            passed=evaluated.outputs["passed"],
            promoted=promoted.output,
        )

    return rarft_pipeline


rarft_pipeline = build(PROFILES[DEFAULT_PROFILE])
