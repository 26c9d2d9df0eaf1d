"""Cold start of the tiny model on the synthetic data set: `python -m rarft.synthetic.pretrain --out DIR`.

Supervised, in three phases, on scenes drawn afresh at every step and never on a split of the data set:

1. the vision tower alone (`tower.py`);
2. truthful: as many matching as mismatched queries. Saved as `DIR/tiny-truthful`;
3. as published grounding models are: still truthful in <think>, but most mismatched queries are answered with
   a segment anyway, and of the few refusals only a third comes with the true correction. Saved as
   `DIR/tiny-answers-everything`: it grounds, and does not refuse.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch

from rarft.models.qwen2_5_vl.load import load_model
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.synthetic import tiny_model
from rarft.synthetic.pretrain.evaluate import measure
from rarft.synthetic.pretrain.phases import Phase
from rarft.synthetic.pretrain.scenes import READING
from rarft.synthetic.pretrain.sft import run_phase
from rarft.synthetic.pretrain.vision import train_tower

TRUTHFUL = Phase("truthful", 1500, 1.5e-3, mismatched=0.5)
ANSWERS_EVERYTHING = Phase("answers everything", 400, 5e-4, mismatched=0.5, answered=0.85, wrong_correction_rate=2 / 3)


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write a checkpoint in bfloat16, as it is shipped; the model itself stays what it is."""
    # Of a copy: rounding a model in place rounds the frequencies of its rotary embedding, too.
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    READING.save(folder)


def train(out: Path, seed: int) -> None:
    """Train the three phases; each goes on from what the one before saved, and is measured as it is saved."""
    processor = tiny_model.build_processor()
    model: Any = tiny_model.build_model(processor.tokenizer, seed)
    encoder = PromptEncoder(processor, model.config, READING.sampling)
    # Scenes of the cold start come from streams that no split of the data set draws from.
    stream = 10_000 + 10 * seed
    train_tower(model, encoder, stream)
    for index, phase in enumerate((TRUTHFUL, ANSWERS_EVERYTHING), start=1):
        run_phase(model, encoder, phase, stream + index)
        folder = out / f"tiny-{phase.name.replace(' ', '-')}"
        save(model, processor, folder)
        model = load_model(str(folder), torch.float32)
        figures = {key: round(value, 4) for key, value in measure(model, encoder).items()}
        print(phase.name, json.dumps(figures), flush=True)
        facts = {"seed": seed, "phase": phase.name, "development": figures}
        (folder / "cold_start.json").write_text(json.dumps(facts, indent=1) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
