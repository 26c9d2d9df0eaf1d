"""Reference embeddings as a Kubeflow component."""

from kfp import dsl

from components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def embed(data: dsl.Input[dsl.Dataset], encoder: str, cache_key: str, embeddings: dsl.Output[dsl.Artifact]) -> int:
    """Encode each distinct reference query of the data.

    Args:
        data: Validated data.
        encoder: Name or folder of a SentenceTransformer; empty for all-MiniLM-L6-v2.
        cache_key: Fingerprint of the inputs; cached results are reused only if it is the same.
        embeddings: embeddings.safetensors and index.json.

    Returns:
        Number of encoded texts.
    """
    from components.runtime import run_component
    from rarft import steps

    with run_component("embed"):
        return steps.embed(data.path, embeddings.path, encoder)
