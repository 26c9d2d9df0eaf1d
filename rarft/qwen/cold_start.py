"""Supervised cold start of the tiny model on the synthetic data set: `python -m rarft.qwen.cold_start --out DIR`.

Three phases, on scenes drawn afresh at every step and never on a split of the data set:

1. mismatched queries only: the model must look, since echoing the query is always wrong somewhere;
2. truthful: as many matching as mismatched queries. Saved as `DIR/truthful`;
3. as published grounding models are: still truthful in <think>, but most mismatched queries are answered with
   a segment anyway. Saved as `DIR/tiny-answers-everything`: it grounds, and does not refuse.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset
from transformers import GenerationConfig

from rarft import response, samples
from rarft.qwen import tiny
from rarft.qwen.batches import IGNORE, per_completion_batch
from rarft.qwen.inputs import PromptEncoder, PromptInputs, video_prompt
from rarft.qwen.reading import ReadingSettings
from rarft.qwen.rollout import generate
from rarft.response import PROMPTS
from rarft.segments import temporal_iou
from rarft.video.decode import Frames

READING = ReadingSettings(PROMPTS["brief"], max_pixels=64 * 56 * 56, max_completion_length=64)


@dataclass(frozen=True)
class Phase:
    """One stretch of training: the share of mismatched queries, and of those, how many get a segment."""

    name: str
    steps: int
    learning_rate: float
    mismatched: float
    answered: float = 0.0


PHASES = (
    Phase("mismatched only", 1800, 1.5e-3, mismatched=1.0),
    Phase("truthful", 1500, 1.5e-3, mismatched=0.5),
    Phase("answers everything", 400, 5e-4, mismatched=0.5, answered=0.85),
)


def lay_out_scene(encoder: PromptEncoder, scene: samples.Scene, query: samples.Scene) -> PromptInputs:
    """The prompt of a scene that was rendered and never encoded as a file."""
    count = 2 * scene.duration
    indices = torch.linspace(0, scene.duration * samples.FPS - 1, count).round().long()
    pixels = samples.render(scene, indices.numpy() / samples.FPS + 1e-6)
    frames = Frames(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        indices.tolist(),
        float(samples.FPS),
        scene.duration * samples.FPS,
    )
    text = response.fill_prompt(READING.prompt, query.description, None)
    return encoder.lay_out(video_prompt(text, "rendered"), frames)


class SceneStream(IterableDataset):
    """Endless batches of (prompt, completion ids) for one phase."""

    def __init__(self, phase: Phase, encoder: PromptEncoder, batch: int, seed: int) -> None:
        self.phase, self.encoder, self.batch, self.seed = phase, encoder, batch, seed

    def __iter__(self) -> Iterator[list[tuple[PromptInputs, torch.Tensor]]]:
        rng = np.random.default_rng(self.seed)
        tokenizer = self.encoder.processor.tokenizer
        while True:
            rows = []
            duration = int(rng.integers(8, 17))
            for _ in range(self.batch):
                scene = samples.draw_scene(rng, duration)
                query = scene
                if rng.random() < self.phase.mismatched:
                    query, _ = samples.mismatch(scene, rng, changes=int(rng.choice([1, 1, 1, 2, 3])))
                text = tiny.truthful_completion(scene, query)
                if query != scene and rng.random() < self.phase.answered:
                    think = text[len("<think>") : text.index("</think>")]
                    text = response.render(think, response.format_segment(scene.segment))
                ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
                rows.append((lay_out_scene(self.encoder, scene, query), torch.tensor(ids)))
            yield rows


def run_phase(model: torch.nn.Module, encoder: PromptEncoder, phase: Phase, batch: int, seed: int) -> None:
    """Train for one phase with AdamW: 50 steps of warm-up, a plateau, then down to a fiftieth."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    pad = encoder.processor.tokenizer.pad_token_id
    stream = iter(DataLoader(SceneStream(phase, encoder, batch, seed), batch_size=None, num_workers=1))
    started, losses = time.monotonic(), []
    model.train()
    for step in range(phase.steps):
        fraction = step / phase.steps
        scale = min(1.0, (step + 1) / 50) * (1.0 if fraction < 0.5 else max(0.02, 2 * (1 - fraction)))
        for group in optimizer.param_groups:
            group["lr"] = phase.learning_rate * scale
        arguments, labels_BL = per_completion_batch(next(stream), pad)
        logits_BLV = model(**arguments, use_cache=False).logits[:, :-1].float()
        loss = cross_entropy(logits_BLV.flatten(0, 1), labels_BL[:, 1:].flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            mean = sum(losses[-50:]) / 50
            print(
                f"{phase.name}: step {step + 1}/{phase.steps}, loss {mean:.4f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )


def measure(model: torch.nn.Module, encoder: PromptEncoder, scenes: int = 120) -> dict[str, float]:
    """Greedy figures on development scenes: each asked its own query and, once per attribute, a hard mismatch."""
    rng = samples.split_rng(0, "dev")
    tokenizer = encoder.processor.tokenizer
    config = GenerationConfig(
        max_new_tokens=64,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    ious: list[float] = []
    hits: dict[str, list[float]] = {
        f"{kind} {name}": [] for kind in ("refused", "seen") for name in samples.ATTRIBUTES
    }
    false_refusals = 0
    model.eval()
    for _ in range(scenes):
        scene = samples.draw_scene(rng)
        queries = [scene]
        for name in samples.ATTRIBUTES:
            query = scene
            while query == scene:
                query, changed = samples.mismatch(scene, rng, 1)
                query = query if changed == [name] else scene
            queries.append(query)
        prompts = [lay_out_scene(encoder, scene, query) for query in queries]
        texts = tokenizer.batch_decode(generate(model, prompts, 1, config), skip_special_tokens=True)
        own = response.parse(texts[0])
        false_refusals += own.refuses
        ious.append(temporal_iou(own.segment, scene.segment) if own.segment else 0.0)
        for name, text in zip(samples.ATTRIBUTES, texts[1:], strict=True):
            hits[f"refused {name}"].append(float(response.parse(text).refuses))
            hits[f"seen {name}"].append(float(f"{getattr(scene, name)} no" in text.split("</think>")[0]))
    return {
        "iou": float(np.mean(ious)),
        "false_refusals": false_refusals / scenes,
        **{key: float(np.mean(values)) for key, values in hits.items()},
    }


def main() -> None:
    """Train the three phases and save the two checkpoints with their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    processor = tiny.build_processor()
    model = tiny.build_model(processor.tokenizer, arguments.seed)
    encoder = PromptEncoder(processor, model.config, READING.sampling)
    for index, phase in enumerate(PHASES):
        # Scenes of the cold start come from streams that no split of the data set draws from.
        run_phase(model, encoder, phase, arguments.batch, seed=10_000 + 10 * arguments.seed + index)
        figures = measure(model, encoder)
        print(phase.name, json.dumps({key: round(value, 3) for key, value in figures.items()}), flush=True)
        if index > 0:
            folder = arguments.out / f"tiny-{phase.name.replace(' ', '-')}"
            model.to(torch.bfloat16).save_pretrained(folder)
            model.float()
            processor.save_pretrained(folder)
            READING.save(folder)
            (folder / "cold_start.json").write_text(
                json.dumps({"seed": arguments.seed, "phase": phase.name, "development": figures}, indent=1) + "\n"
            )


if __name__ == "__main__":
    main()
