"""Training on several nodes as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def launch_job(
    data: dsl.Input[dsl.Dataset],
    embeddings: dsl.Input[dsl.Artifact],
    encoder: str,
    training: str,
    output_uri: str,
    videos_fingerprint: str,
    kind: str,
    job: str,
    image: str,
    nodes: int,
    accelerator: str,
    accelerators: str,
    processes: int,
    cpu: str,
    memory: str,
    disk: str,
    node_selector: dict,
    tolerations: list,
    affinity: dict,
    queue: str,
    priority_class: str,
    store_secret: str,
    hub_secret: str,
    tracking_secret: str,
) -> NamedTuple("Outputs", checkpoint=str, base=str, cache_key=str):  # type: ignore[valid-type]
    """Train with a TrainJob or a PyTorchJob: create it, log its progress, and succeed or fail with it.

    Args:
        data: Validated training data.
        embeddings: Reference embeddings of the same data.
        encoder: Name or folder of a SentenceTransformer; empty for all-MiniLM-L6-v2.
        training: Flags of `rarft train` as YAML, such as `preset: 8xA100-80`.
        output_uri: URI for `checkpoints/` that all nodes can reach; data and embeddings are copied there.
        videos_fingerprint: Fingerprint of the training videos; a run resumes only if it is the same.
        kind: Kind of the job, `trainjob` or `pytorchjob`.
        job: Name of the job; derived from the run, so that a retried step finds it.
        image: Image of the containers.
        nodes: Number of nodes.
        accelerator: Resource name of the GPUs.
        accelerators: Number of GPUs per node.
        processes: Processes per node; 0 for one per GPU.
        cpu: CPUs per pod.
        memory: Memory per pod, including shared memory.
        disk: Ephemeral storage per pod, for checkpoints, models and videos.
        node_selector: Labels of the nodes.
        tolerations: Taints that the pods tolerate.
        affinity: Node affinity of the pods.
        queue: Kueue's local queue; empty for none.
        priority_class: PriorityClass of the pods; empty for the cluster's default.
        store_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION.
        hub_secret: Secret with HF_TOKEN.
        tracking_secret: Secret with WANDB_API_KEY.

    Returns:
        URI of the final checkpoint, the model that was trained, and a text that changes when the checkpoint changes.
    """
    from components.runtime import run_component
    from rarft import steps

    settings = {
        "name": job, "image": image, "nodes": nodes, "accelerator": accelerator, "gpus": int(accelerators),
        "processes": processes, "cpu": cpu, "memory": memory, "disk": disk, "node_selector": node_selector,
        "tolerations": tolerations, "affinity": affinity, "queue": queue, "priority_class": priority_class,
        "store_secret": store_secret, "hub_secret": hub_secret, "tracking_secret": tracking_secret,
    }  # fmt: skip
    with run_component("launch_job"):
        inputs = steps.training_inputs(data.path, embeddings.path, encoder, videos_fingerprint)
        return steps.train_on_cluster(training, inputs, output_uri, kind, settings)
