"""The tasks of the pipeline: each creates a component's task from parameters and from the outputs of earlier tasks."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from kfp import dsl
from kfp.dsl import PipelineTask

from components.embed.component import embed
from components.evaluate.component import evaluate
from components.fingerprint.component import fingerprint
from components.launch_pytorchjob.component import launch_pytorchjob
from components.promote.component import promote
from components.train.component import train
from components.validate.component import validate
from pipelines.placement import use_accelerators, use_container, use_data, use_hub, use_retries, use_tracking
from pipelines.profiles import Profile


class Tasks:
    """Creates the tasks, with their settings for a cluster.

    A component's inputs that have the name of a pipeline parameter get that parameter.
    """

    def __init__(self, profile: Profile, parameters: Mapping[str, Any]) -> None:
        """
        Args:
            profile: Compile-time profile.
            parameters: The pipeline's parameters, by name.
        """
        self._profile = profile
        self._parameters = SimpleNamespace(**parameters)

    def fingerprint(self) -> PipelineTask:
        """Check the parameters and fingerprint the inputs."""
        task = self._create(fingerprint)
        task.set_caching_options(False)  # inputs of the same name may have changed
        return self._on_cpu(task, self._parameters.validate_image)

    def validate(self, fingerprinted: PipelineTask) -> PipelineTask:
        """Validate the annotations."""
        task = self._create(validate, cache_key=fingerprinted.outputs["cache_key"])
        return self._on_cpu(task, self._parameters.validate_image)

    def embed(self, fingerprinted: PipelineTask, validated: PipelineTask) -> PipelineTask:
        """Encode the reference queries."""
        task = self._create(
            embed, data=validated.outputs["data"], cache_key=fingerprinted.outputs["cache_key"]
        )  # fmt: skip
        self._on_cpu(task, self._parameters.steps_image)
        use_hub(task, self._parameters.hub_secret)
        return task

    def train(self, fingerprinted: PipelineTask, validated: PipelineTask, embedded: PipelineTask) -> PipelineTask:
        """Train on one node, or with a PyTorchJob."""
        p, profile = self._parameters, self._profile
        inputs = {
            "data": validated.outputs["data"],
            "embeddings": embedded.outputs["embeddings"],
            "videos_fingerprint": fingerprinted.outputs["videos_fingerprint"],
        }
        if profile.use_pytorchjob:
            name = f"rarft-{dsl.PIPELINE_JOB_ID_PLACEHOLDER}"
            task = self._create(
                launch_pytorchjob, **inputs, job=name, image=p.train_image, cpu=p.train_cpu, memory=p.train_memory
            )
            # Not retried: a retry would restart a job that a user cancelled.
            use_container(task, p.steps_image, p.cpu, p.memory, profile.training_hours)
            use_data(task, profile, p.store_secret, p.pvc_name)
        else:
            task = self._create(train, **inputs)
            use_tracking(task, p.tracking_secret)
            self._on_accelerators(task, profile.training_hours)
        task.set_caching_options(False)  # it resumes from its checkpoints, or finds that it has finished
        use_hub(task, p.hub_secret)
        return task

    def evaluate(self, fingerprinted: PipelineTask, validated: PipelineTask, trained: PipelineTask) -> PipelineTask:
        """Evaluate the trained checkpoint and compare it with its base."""
        task = self._create(
            evaluate,
            checkpoint=trained.outputs["checkpoint"],
            base=trained.outputs["base"],
            data=validated.outputs["eval_data"],
            in_sample=validated.outputs["in_sample"],
            cache_key=fingerprinted.outputs["cache_key"],
            checkpoint_cache_key=trained.outputs["cache_key"],
            compare_cache_key=fingerprinted.outputs["compare_fingerprint"],
        )
        self._on_accelerators(task, self._profile.evaluation_hours)
        use_hub(task, self._parameters.hub_secret)
        return task

    def promote(self, trained: PipelineTask, evaluated: PipelineTask) -> PipelineTask:
        """Copy the checkpoint to its release location if it passed its gates."""
        task = self._create(
            promote,
            checkpoint=trained.outputs["checkpoint"],
            results=evaluated.outputs["results"],
            passed=evaluated.outputs["passed"],
        )
        task.set_caching_options(False)  # an earlier copy may have been deleted
        return self._on_cpu(task, self._parameters.steps_image)

    def _create(self, component: Any, **inputs: Any) -> PipelineTask:
        parameters = vars(self._parameters)
        shared = {name: parameters[name] for name in component.component_spec.inputs if name in parameters}
        return component(**{**shared, **inputs})

    def _on_cpu(self, task: PipelineTask, image: Any) -> PipelineTask:
        p, profile = self._parameters, self._profile
        use_container(task, image, p.cpu, p.memory, profile.step_hours)
        use_data(task, profile, p.store_secret, p.pvc_name)
        use_retries(task, profile)
        return task

    def _on_accelerators(self, task: PipelineTask, hours: int) -> PipelineTask:
        """Place a task on accelerators. It is not retried: training restarts its processes itself."""
        p, profile = self._parameters, self._profile
        use_container(task, p.train_image, p.train_cpu, p.train_memory, hours)
        use_data(task, profile, p.store_secret, p.pvc_name)
        use_accelerators(
            task, profile, p.accelerator, p.accelerators, p.node_selector, p.tolerations, p.affinity
        )  # fmt: skip
        return task
