"""The pipeline: validate -> embed -> train -> evaluate -> promote; one definition for all places that it runs in."""

from typing import NamedTuple

from kfp import dsl

from components.embed.component import embed
from components.evaluate.component import evaluate
from components.promote.component import promote
from components.train.component import train
from components.validate.component import validate


class Outputs(NamedTuple):
    """What a run leaves: the checkpoint, the validated data of both files, the evaluation's results and verdict."""

    checkpoint: str
    data: dsl.Dataset
    eval_data: dsl.Dataset
    results: dsl.Artifact
    passed: bool
    promoted: str


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
    gates: str = "",
    final_uri: str = "",
) -> Outputs:
    """Validate annotations, encode their reference queries, train by GRPO, and evaluate base against trained.

    Args:
        annotations: Path of the training annotations, a JSON list or JSON Lines.
        output_uri: Where checkpoints go.
        video_root: Folder that the videos lie in; empty for the folder of the annotations.
        eval_annotations: Path of held-out annotations; empty to evaluate on the training data, labelled so.
        eval_video_root: Folder that the held-out videos lie in; empty for `video_root`.
        max_quarantine: Most queries of a file that may be quarantined, such as 5% or 120; empty for any number.
        encoder: SentenceTransformer name or folder; empty for all-MiniLM-L6-v2.
        training: Flags of `rarft train` as one YAML text.
        gates: What the checkpoint must reach to be shipped, one a line, such as ra_iou.mean>=base; empty for nothing.
        final_uri: Where a checkpoint that passes them is copied to, with its metrics; empty to leave it.

    Returns:
        The trained checkpoint, the validated data, the evaluation's results, whether the gates were passed, and where
        the checkpoint was promoted to.
    """
    validated = validate(
        annotations=annotations,
        video_root=video_root,
        eval_annotations=eval_annotations,
        eval_video_root=eval_video_root,
        max_quarantine=max_quarantine,
    )
    embedded = embed(data=validated.outputs["data"], encoder=encoder)
    trained = train(
        data=validated.outputs["data"],
        embeddings=embedded.outputs["embeddings"],
        encoder=encoder,
        training=training,
        output_uri=output_uri,
    )
    # A checkpoint that was resumed or trained elsewhere is another result for the same inputs.
    trained.set_caching_options(False)
    evaluated = evaluate(
        checkpoint=trained.outputs["checkpoint"],
        base=trained.outputs["base"],
        data=validated.outputs["eval_data"],
        encoder=encoder,
        in_sample=validated.outputs["in_sample"],
        gates=gates,
    )
    promoted = promote(
        checkpoint=trained.outputs["checkpoint"],
        results=evaluated.outputs["results"],
        passed=evaluated.outputs["passed"],
        final_uri=final_uri,
    )
    return Outputs(
        checkpoint=trained.outputs["checkpoint"],
        data=validated.outputs["data"],
        eval_data=validated.outputs["eval_data"],
        results=evaluated.outputs["results"],
        passed=evaluated.outputs["passed"],
        promoted=promoted.output,
    )
