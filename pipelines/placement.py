"""Where a step runs on a cluster and what it is given: image, resources, secrets, nodes, volumes, time."""

from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask

from pipelines.profiles import Profile
from rarft.cluster.secrets import HUB_KEYS, STORE_KEYS, TRACKING_KEYS


def _secret(task: PipelineTask, name: Any, keys: tuple[str, ...]) -> None:
    kubernetes.use_secret_as_env(task, secret_name=name, secret_key_to_env={key: key for key in keys}, optional=True)


def place(
    task: PipelineTask, profile: Profile, image: Any, cpu: Any, memory: Any, store_secret: Any, claim: Any
) -> None:
    """What every step is given. Values may be the pipeline's parameters."""
    task.set_container_image(image)
    task.set_cpu_limit(cpu)
    task.set_memory_limit(memory)
    _secret(task, store_secret, STORE_KEYS)
    if profile.claim:
        kubernetes.mount_pvc(task, pvc_name=claim, mount_path="/data")


def with_time_limit(task: PipelineTask, seconds: int) -> None:
    """A step that may take so many seconds."""
    kubernetes.set_timeout(task, seconds)


def without_accelerator(task: PipelineTask, profile: Profile, seconds: int) -> None:
    """A step that is cheap to try again, and may take so many seconds."""
    if profile.retries:
        task.set_retry(profile.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
    with_time_limit(task, seconds)


def with_accelerators(
    task: PipelineTask, profile: Profile, seconds: int, accelerator: Any, number: Any, nodes: tuple[Any, Any, Any]
) -> None:
    """A step on accelerators, which is not tried again: training goes on from its own checkpoints.

    Args:
        task: the step.
        profile: what is decided when compiling.
        seconds: most that it may take.
        accelerator: resource that the nodes offer, such as nvidia.com/gpu.
        number: how many; none with 0.
        nodes: node selector, tolerations and node affinity, as JSON.
    """
    task.set_accelerator_type(accelerator)
    task.set_accelerator_limit(number)
    selector, tolerations, affinity = nodes
    kubernetes.add_node_selector_json(task, selector)
    kubernetes.add_toleration_json(task, tolerations)
    kubernetes.add_node_affinity_json(task, affinity)
    # Processes of a step hand each other tensors there, and a container has 64 MB of it.
    kubernetes.empty_dir_mount(
        task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=profile.shared_memory
    )
    with_time_limit(task, seconds)


def with_hub(task: PipelineTask, secret: Any) -> None:
    """A step that may download models."""
    _secret(task, secret, HUB_KEYS)


def with_tracking(task: PipelineTask, secret: Any) -> None:
    """A step that reports to W&B."""
    _secret(task, secret, TRACKING_KEYS)
