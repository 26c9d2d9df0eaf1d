"""Pretrain the tiny model on the synthetic dataset: `python -m rarft.synthetic.pretrain --out DIR`.

Three supervised phases, on new scenes at every step and never on a split of the dataset:

1. vision tower: the tower alone (`vision.py`);
2. truthful: half of the queries match, half are mismatched. Saved as `DIR/tiny-truthful`;
3. answers everything: as published grounding models, it is still truthful in <think>, but most mismatched queries are
   answered with a segment, and only a third of the few refusals have the true correction. Saved as
   `DIR/tiny-answers-everything`: it grounds and does not refuse.
"""

import argparse
import copy
import json
import logging
from pathlib import Path
from typing import Any

import torch

from rarft.logs import setup_logging
from rarft.models.qwen2_5_vl.load import load_model
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.synthetic import tiny_model
from rarft.synthetic.pretrain.evaluate import evaluate_model
from rarft.synthetic.pretrain.phases import Phase
from rarft.synthetic.pretrain.scenes import PROMPT_CONFIG
from rarft.synthetic.pretrain.sft import train_phase
from rarft.synthetic.pretrain.vision import train_vision_tower

PHASES = (
    Phase("truthful", 1500, 1.5e-3, 0.5),
    Phase("answers everything", 400, 5e-4, 0.5, answered_mismatch_rate=0.85, wrong_correction_rate=2 / 3),
)
logger = logging.getLogger("rarft.synthetic.pretrain")  # also when run by -m


def save(model: Any, processor: Any, folder: Path) -> None:
    """Write a checkpoint in bfloat16. The model itself is unchanged."""
    # A copy, since converting a model in place also rounds the frequencies of its rotary embedding.
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    PROMPT_CONFIG.save(folder)


def train(out: Path, seed: int) -> None:
    """Train all phases. Each starts from the saved checkpoint of the previous one, which is also evaluated."""
    processor = tiny_model.build_processor()
    model: Any = tiny_model.build_model(processor.tokenizer, seed)
    encoder = PromptEncoder(processor, model.config, PROMPT_CONFIG.sampling)
    stream = 10_000 + 10 * seed  # of random numbers that no split of the dataset uses
    train_vision_tower(model, encoder, stream)
    for index, phase in enumerate(PHASES, start=1):
        train_phase(model, encoder, phase, stream + index)
        folder = out / f"tiny-{phase.name.replace(' ', '-')}"
        save(model, processor, folder)
        model = load_model(str(folder), torch.float32)
        metrics = {key: round(value, 4) for key, value in evaluate_model(model, encoder).items()}
        logger.info("%s: %s", phase.name, json.dumps(metrics))
        content = {"seed": seed, "phase": phase.name, "development": metrics}
        (folder / "cold_start.json").write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="Folder for the checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="Random seed")
    parser.add_argument("--threads", type=int, default=2, help="Number of CPU threads")
    options = parser.parse_args()
    setup_logging()
    torch.set_num_threads(options.threads)
    train(options.out, options.seed)


if __name__ == "__main__":
    main()
