"""Training over several machines as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def launch_pytorchjob(
    data: dsl.Input[dsl.Dataset],
    embeddings: dsl.Input[dsl.Artifact],
    encoder: str,
    training: str,
    output_uri: str,
    videos: str,
    job: str,
    image: str,
    nodes: int,
    accelerator: str,
    accelerators: str,
    processes: int,
    cpu: str,
    memory: str,
    node_selector: dict,
    tolerations: list,
    affinity: dict,
    queue: str,
    priority_class: str,
    store_secret: str,
    hub_secret: str,
    tracking_secret: str,
) -> NamedTuple("Outputs", checkpoint=str, base=str, content=str):  # type: ignore[valid-type]
    """Train by a PyTorchJob: start it, tell what happens to it, and end with it.

    Args:
        data: Validated training data.
        embeddings: Reference embeddings of the same data.
        encoder: SentenceTransformer name or folder; empty for all-MiniLM-L6-v2.
        training: Flags of `rarft train` as one YAML text, such as `preset: 8xA100-80`.
        output_uri: Where `checkpoints/` is made, a URI that all machines reach; data and embeddings are copied there.
        videos: What changes when the videos do; a run goes on only with the same.
        job: Name of the job; that of the run, so that the step tried again finds it.
        image: Image of its containers.
        nodes: Machines.
        accelerator: Resource that they offer.
        accelerators: How many each machine's pod gets.
        processes: On each machine; 0 for one a GPU.
        cpu: CPUs of each machine's pod.
        memory: Memory of each machine's pod, the shared memory included.
        node_selector: Labels of the nodes.
        tolerations: Taints that the pods tolerate.
        affinity: The pods' node affinity.
        queue: Kueue's local queue; empty for none.
        priority_class: The pods' PriorityClass; empty for the cluster's default.
        store_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION.
        hub_secret: Secret with HF_TOKEN.
        tracking_secret: Secret with WANDB_API_KEY.

    Returns:
        The final checkpoint's URI, the model that it was trained from, and what changes when it does.
    """
    from components.launch_pytorchjob.run import run

    settings = {
        "image": image, "nodes": nodes, "accelerator": accelerator, "gpus": int(accelerators), "processes": processes,
        "cpu": cpu, "memory": memory, "node_selector": node_selector, "tolerations": tolerations,
        "affinity": affinity, "queue": queue, "priority_class": priority_class, "store_secret": store_secret,
        "hub_secret": hub_secret, "tracking_secret": tracking_secret,
    }  # fmt: skip
    return run(data.path, embeddings.path, encoder, training, output_uri, videos, job, settings)
