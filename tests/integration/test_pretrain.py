"""Pretraining of the tiny model: targets of its phases, and abilities of the packaged checkpoints."""

from collections import Counter

import numpy as np
import pytest
import torch

from rarft.completion import parse_completion
from rarft.models.qwen2_5_vl.load import load_model, load_processor
from rarft.models.qwen2_5_vl.per_completion import IGNORE_INDEX
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.synthetic import dataset
from rarft.synthetic.pretrain.evaluate import evaluate_model
from rarft.synthetic.pretrain.phases import Phase
from rarft.synthetic.pretrain.scenes import PROMPT_CONFIG, frame_times
from rarft.synthetic.pretrain.vision import second_labels


def scenes(count):
    rng = np.random.default_rng(3)
    return [dataset.draw_scene(rng) for _ in range(count)]


def test_second_labels_match_rendered_frames():
    for scene in scenes(20):
        visible_S2, attributes_S3 = second_labels(scene)
        frames = dataset.render(scene, frame_times(scene)).astype(int)
        saturation = frames.max(3) - frames.min(3)  # the background is gray
        colored_S2 = torch.from_numpy((saturation.max((1, 2)) > 20).reshape(-1, 2))
        assert torch.equal(visible_S2.bool(), colored_S2)
        expected = [values.index(getattr(scene, name)) for name, values in dataset.ATTRIBUTES.items()]
        for colored, attributes in zip(colored_S2.all(1), attributes_S3.tolist(), strict=True):
            assert attributes == (expected if colored else [IGNORE_INDEX] * 3)


@pytest.mark.parametrize(
    ("phase", "refused", "true", "echoed"),
    [
        (Phase("truthful", 1, 1e-3, mismatch_rate=0.5), 0.5, 0.5, 0.0),
        (
            Phase(
                "answers everything",
                1,
                1e-3,
                mismatch_rate=0.5,
                answered_mismatch_rate=0.7,
                wrong_correction_rate=0.5,
            ),
            0.15,
            0.075,
            0.0375,
        ),
    ],
)
def test_phase_rates(phase, refused, true, echoed):
    rng = np.random.default_rng(0)
    outcomes: Counter[str] = Counter()
    for scene in scenes(2000):
        query = phase.query(scene, rng)
        target = parse_completion(phase.completion(scene, query, rng))
        outcomes["refused"] += target.refuses
        outcomes["true"] += target.corrected_query == scene.description
        outcomes["echoed"] += target.corrected_query == query.description
        assert target.well_formed
        assert target.segment in (None, scene.segment)
        assert not (target.refuses and query == scene)
    rates = [outcomes[name] / 2000 for name in ("refused", "true", "echoed")]
    assert rates == pytest.approx([refused, true, echoed], abs=0.025)


# Over 12 scenes; chance level is 0.25 or 0.33. The truthful one takes yellow shapes for the queried one
# (docs/learning.md).
@pytest.mark.parametrize(("name", "min_seen"), [("tiny-truthful", 0.7), ("tiny", 0.85)])
def test_packaged_checkpoints_see_and_refuse(name, min_seen):
    """Both see what the clips show, and only the truthful one refuses."""
    model, processor = load_model(name, torch.float32), load_processor(name)
    metrics = evaluate_model(model, PromptEncoder(processor, model.config, PROMPT_CONFIG.sampling), scenes=12)
    seen = [metrics[f"seen {attribute}"] for attribute in dataset.ATTRIBUTES]
    assert min(seen) >= min_seen
    refused = [metrics[f"refused {attribute}"] for attribute in dataset.ATTRIBUTES]
    assert refused == pytest.approx(seen if name == "tiny-truthful" else [0.0] * 3, abs=0.1)
    assert metrics["iou"] > 0.85
    assert metrics["false_refusals"] == 0
