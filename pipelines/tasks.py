"""The tasks of the pipeline: each creates a component's task from parameters and from the outputs of earlier tasks."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl import PipelineTask

from components.convert.component import convert
from components.embed.component import embed
from components.evaluate.component import evaluate
from components.fingerprint.component import fingerprint
from components.launch_job.component import launch_job
from components.negatives.component import negatives
from components.promote.component import promote
from components.train.component import train
from components.validate.component import validate
from pipelines.profiles import Profile
from rarft.cluster.secrets import HUB_KEYS, MODEL_KEYS, STORE_KEYS, TRACKING_KEYS


def _use_secret(task: PipelineTask, name: Any, keys: tuple[str, ...]) -> None:
    kubernetes.use_secret_as_env(task, secret_name=name, secret_key_to_env={key: key for key in keys}, optional=True)


class Tasks:
    """Creates the tasks of a compile-time profile, with their settings for a cluster.

    A component's inputs that have the name of a pipeline parameter get that parameter.
    """

    def __init__(self, profile: Profile, parameters: Mapping[str, Any]) -> None:
        self._profile = profile
        self._parameters = SimpleNamespace(**parameters)

    def fingerprint(self) -> PipelineTask:
        """Check the parameters and fingerprint the inputs."""
        task = self._create(fingerprint)
        task.set_caching_options(False)  # inputs of the same name may have changed
        return self._on_cpu(task, self._parameters.validate_image)

    def convert(self, fingerprinted: PipelineTask) -> PipelineTask:
        """Convert the annotations, unless they are in the RIQ format."""
        task = self._create(convert, cache_key=fingerprinted.outputs["cache_key"])
        return self._on_cpu(task, self._parameters.validate_image)

    def validate(self, fingerprinted: PipelineTask, converted: PipelineTask) -> PipelineTask:
        """Validate the annotations."""
        inputs = {"converted": converted.outputs["converted"], "cache_key": fingerprinted.outputs["cache_key"]}
        task = self._create(validate, **inputs)
        return self._on_cpu(task, self._parameters.validate_image)

    def negatives(self, fingerprinted: PipelineTask, validated: PipelineTask) -> PipelineTask:
        """Add refusable queries to the training data."""
        inputs = {"data": validated.outputs["data"], "cache_key": fingerprinted.outputs["cache_key"]}
        task = self._on_cpu(self._create(negatives, **inputs), self._parameters.steps_image)
        _use_secret(task, self._parameters.hub_secret, HUB_KEYS)
        _use_secret(task, self._parameters.model_secret, MODEL_KEYS)
        return task

    def embed(self, fingerprinted: PipelineTask, completed: PipelineTask) -> PipelineTask:
        """Encode the reference queries."""
        inputs = {"data": completed.outputs["training_data"], "cache_key": fingerprinted.outputs["cache_key"]}
        task = self._on_cpu(self._create(embed, **inputs), self._parameters.steps_image)
        _use_secret(task, self._parameters.hub_secret, HUB_KEYS)
        return task

    def train(self, fingerprinted: PipelineTask, completed: PipelineTask, embedded: PipelineTask) -> PipelineTask:
        """Train on one node, or with a job on several nodes."""
        p, profile = self._parameters, self._profile
        inputs = {
            "data": completed.outputs["training_data"],
            "embeddings": embedded.outputs["embeddings"],
            "videos_fingerprint": fingerprinted.outputs["videos_fingerprint"],
        }
        if profile.job_kind:
            name = f"rarft-{dsl.PIPELINE_JOB_ID_PLACEHOLDER}"
            task = self._create(
                launch_job,
                **inputs,
                kind=profile.job_kind,
                job=name,
                image=p.train_image,
                cpu=p.train_cpu,
                memory=p.train_memory,
                disk=p.train_disk,
            )
            # Not retried: a retry would restart a job that a user cancelled.
            self._use_container(task, p.steps_image, p.cpu, p.memory, profile.training_hours)
        else:
            task = self._on_accelerators(self._create(train, **inputs), profile.training_hours)
            _use_secret(task, p.tracking_secret, TRACKING_KEYS)
        task.set_caching_options(False)  # it resumes from its checkpoints, or finds that it has finished
        _use_secret(task, p.hub_secret, HUB_KEYS)
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
        _use_secret(task, self._parameters.hub_secret, HUB_KEYS)
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

    def _use_container(self, task: PipelineTask, image: Any, cpu: Any, memory: Any, hours: int) -> None:
        """Set image, resources and time limit, and give access to the data."""
        task.set_container_image(image)
        task.set_cpu_limit(cpu)
        task.set_memory_limit(memory)
        kubernetes.set_timeout(task, hours * 3600)
        _use_secret(task, self._parameters.store_secret, STORE_KEYS)
        if self._profile.mount_pvc:
            kubernetes.mount_pvc(task, pvc_name=self._parameters.pvc_name, mount_path="/data")

    def _on_cpu(self, task: PipelineTask, image: Any) -> PipelineTask:
        p, profile = self._parameters, self._profile
        self._use_container(task, image, p.cpu, p.memory, profile.step_hours)
        if profile.retries:
            # Argo measures the maximum from the start of the first attempt.
            attempts_s = (profile.retries + 1) * (profile.step_hours + 1) * 3600
            task.set_retry(
                profile.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration=f"{attempts_s}s"
            )
        return task

    def _on_accelerators(self, task: PipelineTask, hours: int) -> PipelineTask:
        """Place a task on accelerators. It is not retried: training restarts its processes itself."""
        p = self._parameters
        self._use_container(task, p.train_image, p.train_cpu, p.train_memory, hours)
        task.set_accelerator_type(p.accelerator)
        task.set_accelerator_limit(p.accelerators)
        kubernetes.add_node_selector_json(task, p.node_selector)
        kubernetes.add_toleration_json(task, p.tolerations)
        kubernetes.add_node_affinity_json(task, p.affinity)
        # Processes exchange tensors through it, and the default is 64 MB.
        shared_memory = {"volume_name": "shm", "mount_path": "/dev/shm", "medium": "Memory"}
        kubernetes.empty_dir_mount(task, **shared_memory, size_limit=self._profile.shared_memory)
        return task
