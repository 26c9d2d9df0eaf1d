"""What the model can do after a phase of the cold start, on development scenes."""

import numpy as np
import torch
from transformers import GenerationConfig

from rarft import completion
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.models.qwen2_5_vl.rollout import generate
from rarft.segments import temporal_iou
from rarft.synthetic import dataset
from rarft.synthetic.pretrain.scenes import build_scene_inputs


def measure(model: torch.nn.Module, encoder: PromptEncoder, scenes: int = 120) -> dict[str, float]:
    """Greedy figures on development scenes: each asked its own query and, once per attribute, a hard mismatch."""
    rng = dataset.split_rng(0, "dev")
    tokenizer = encoder.processor.tokenizer
    config = GenerationConfig(
        max_new_tokens=64,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    ious: list[float] = []
    hits: dict[str, list[float]] = {
        f"{kind} {name}": [] for kind in ("refused", "seen") for name in dataset.ATTRIBUTES
    }
    false_refusals = 0
    model.eval()
    for _ in range(scenes):
        scene = dataset.draw_scene(rng)
        queries = [scene]
        for name in dataset.ATTRIBUTES:
            query = scene
            while query == scene:
                query, changed = dataset.mismatch(scene, rng, 1)
                query = query if changed == [name] else scene
            queries.append(query)
        prompts = [build_scene_inputs(encoder, scene, query) for query in queries]
        texts = tokenizer.batch_decode(generate(model, prompts, 1, config), skip_special_tokens=True)
        own = completion.parse_completion(texts[0])
        false_refusals += own.refuses
        ious.append(temporal_iou(own.segment, scene.segment) if own.segment else 0.0)
        for name, text in zip(dataset.ATTRIBUTES, texts[1:], strict=True):
            hits[f"refused {name}"].append(float(completion.parse_completion(text).refuses))
            hits[f"seen {name}"].append(float(f"{getattr(scene, name)} no" in text.split("</think>")[0]))
    return {
        "iou": float(np.mean(ious)),
        "false_refusals": false_refusals / scenes,
        **{key: float(np.mean(values)) for key, values in hits.items()},
    }
