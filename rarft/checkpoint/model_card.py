"""Model cards: the README.md of a checkpoint, with metadata in the form of the Hugging Face Hub."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarft.checkpoint.source import is_hub_name

README = "README.md"
_TEMPLATE = Path(__file__).with_name("model_card.md.j2")
_EVALUATION = re.compile(r"(?<=^## Evaluation\n\n).*?(?=^## )", re.DOTALL | re.MULTILINE)
_TASK = "video-text-to-text"
# Label, dotted path, value, and the 95 % interval if it is known.
Metric = tuple[str, str, float, Sequence[float] | None]


def write_model_card(
    folder: Path, name: str, step: int, data: str, counts: tuple[int, int], settings: Mapping[str, Any]
) -> None:
    """Write the card of a trained checkpoint.

    Args:
        folder: Folder of the checkpoint.
        name: Name of the run.
        step: Last step of the training.
        data: Name of the training data.
        counts: Numbers of queries, and of refusable ones, of the training data.
        settings: Resume key of the run.
    """
    from huggingface_hub import ModelCard, ModelCardData

    base = str(settings["model"])
    card_data = ModelCardData(
        base_model=base if is_hub_name(base) else None,
        language="en",
        library_name="transformers",
        license="other",
        license_name="license-of-the-base-model",
        model_name=name,
        pipeline_tag=_TASK,
        tags=["temporal-grounding", "refusal", "grpo", "ra-rft"],
    )
    template = _TEMPLATE.read_text(encoding="utf-8")
    card = ModelCard.from_template(
        card_data, template_str=template, name=name, step=step, base_model=base, data=data,
        samples=counts[0], refusable=counts[1], settings=settings,
    )  # fmt: skip
    card.save(folder / README)


def add_evaluation(folder: Path, data: str, samples: int, metrics: Sequence[Metric]) -> None:
    """Add the metrics of an evaluation to the card of a checkpoint; a checkpoint without a card gets none.

    Args:
        folder: Folder of the checkpoint.
        data: Description of the queries, such as "held-out queries".
        samples: Number of queries.
        metrics: The metrics.
    """
    from huggingface_hub import EvalResult, ModelCard

    path = folder / README
    if not path.is_file():
        return
    card = ModelCard.load(path)
    lines = [f"{samples:,} {data}. Intervals come from a bootstrap over videos.", ""]
    lines += ["| metric | value | 95 % interval |", "|---|---|---|"]
    for label, _, value, interval in metrics:
        lines.append(f"| {label} | {value:.3f} | {f'{interval[0]:.3f} to {interval[1]:.3f}' if interval else '–'} |")
    card.text = _EVALUATION.sub(lambda _: "\n".join(lines) + "\n\n", card.text)
    card.data.model_name = card.data.model_name or folder.name
    card.data.eval_results = [
        EvalResult(_TASK, "riq", data, path, value, metric_name=label) for label, path, value, _ in metrics
    ]
    card.save(path)
