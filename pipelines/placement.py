"""Cluster settings of a task: image, resources, secrets, nodes, volumes, time limit. Values may be parameters."""

from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask

from pipelines.profiles import Profile
from rarft.cluster.secrets import HUB_KEYS, STORE_KEYS, TRACKING_KEYS


def _use_secret(task: PipelineTask, name: Any, keys: tuple[str, ...]) -> None:
    kubernetes.use_secret_as_env(task, secret_name=name, secret_key_to_env={key: key for key in keys}, optional=True)


def use_container(task: PipelineTask, image: Any, cpu: Any, memory: Any, hours: int) -> None:
    """Set image, resources and time limit."""
    task.set_container_image(image)
    task.set_cpu_limit(cpu)
    task.set_memory_limit(memory)
    kubernetes.set_timeout(task, hours * 3600)


def use_data(task: PipelineTask, profile: Profile, store_secret: Any, pvc_name: Any) -> None:
    """Give access to the S3 store, and to a volume with the profile `pvc`."""
    _use_secret(task, store_secret, STORE_KEYS)
    if profile.mount_pvc:
        kubernetes.mount_pvc(task, pvc_name=pvc_name, mount_path="/data")


def use_retries(task: PipelineTask, profile: Profile) -> None:
    """Retry a task that fails."""
    if profile.retries:
        task.set_retry(profile.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")


def use_accelerators(
    task: PipelineTask, profile: Profile, accelerator: Any, count: Any, node_selector: Any, tolerations: Any,
    affinity: Any,
) -> None:  # fmt: skip
    """Request accelerators and nodes, and enough shared memory for several processes.

    Args:
        task: The task.
        profile: Compile-time profile.
        accelerator: Resource name, such as nvidia.com/gpu.
        count: Number of accelerators; 0 for none.
        node_selector: Node labels, as JSON.
        tolerations: Tolerations, as JSON.
        affinity: Node affinity, as JSON.
    """
    task.set_accelerator_type(accelerator)
    task.set_accelerator_limit(count)
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    kubernetes.add_node_affinity_json(task, affinity)
    # Processes exchange tensors through it, and the default is 64 MB.
    kubernetes.empty_dir_mount(
        task, volume_name="shm", mount_path="/dev/shm", medium="Memory", size_limit=profile.shared_memory
    )


def use_hub(task: PipelineTask, secret: Any) -> None:
    """Give access to models on the Hugging Face Hub."""
    _use_secret(task, secret, HUB_KEYS)


def use_tracking(task: PipelineTask, secret: Any) -> None:
    """Give access to W&B."""
    _use_secret(task, secret, TRACKING_KEYS)
