"""Evaluation of the tiny model after a phase of pretraining."""

from collections import defaultdict

import numpy as np
import torch
from transformers import GenerationConfig

from rarft.completion import parse_completion
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.models.qwen2_5_vl.rollout import generate
from rarft.segments import temporal_iou
from rarft.synthetic import dataset
from rarft.synthetic.pretrain.scenes import build_scene_inputs


def evaluate_model(model: torch.nn.Module, encoder: PromptEncoder, scenes: int = 120) -> dict[str, float]:
    """Return metrics of greedy completions for development scenes.

    Each scene gets its own query and, for each attribute, a query that differs in this attribute.

    Returns:
        `iou` and `false_refusals` of the scenes' own queries. For each attribute, `refused NAME`: fraction of its
        mismatched queries that are refused; `seen NAME`: fraction whose <think> names the mismatch.
    """
    rng = dataset.split_rng(0, "dev")
    tokenizer = encoder.processor.tokenizer
    config = GenerationConfig(
        max_new_tokens=64,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    values: dict[str, list[float]] = defaultdict(list)
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
        matching = parse_completion(texts[0])
        values["false_refusals"].append(matching.refuses)
        values["iou"].append(temporal_iou(matching.segment, scene.segment) if matching.segment else 0.0)
        for name, text in zip(dataset.ATTRIBUTES, texts[1:], strict=True):
            values[f"refused {name}"].append(parse_completion(text).refuses)
            values[f"seen {name}"].append(f"{getattr(scene, name)} no" in text.split("</think>")[0])
    return {name: float(np.mean(each)) for name, each in values.items()}
