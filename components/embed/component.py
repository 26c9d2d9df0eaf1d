"""Reference embeddings as a Kubeflow component."""

from kfp import dsl

from components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def embed(data: dsl.Input[dsl.Dataset], encoder: str, content: str, embeddings: dsl.Output[dsl.Artifact]) -> int:
    """Encode each distinct reference query of the data once.

    Args:
        data: Validated data.
        encoder: SentenceTransformer name or folder; empty for all-MiniLM-L6-v2.
        content: Fingerprint of what is read: another one, and cached results are not taken.
        embeddings: embeddings.safetensors and index.json.

    Returns:
        How many texts were encoded.
    """
    from rarft import steps
    from rarft.errors import report_errors

    with report_errors("embed"):
        return steps.embed(data.path, embeddings.path, encoder or None)
