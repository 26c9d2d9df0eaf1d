"""A small checkpoint with the structure of Qwen2.5-VL-7B-Instruct and random weights.

As published: chat template, special token ids, vocabulary of 152,064, untied head, head size 128, M-RoPE sections,
grouped key/value heads, window attention with full attention in every eighth block, processor and generation settings.
Reduced: depth, widths, and merges of the tokenizer.
"""

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from helpers.paths import ROOT
from rarft.synthetic.tiny_model import chat_template

PUBLISHED = ROOT / "tests" / "data" / "qwen2_5_vl"
TEXT = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": 2,
    "max_window_layers": 2,
}
VISION = {
    "depth": 8,
    "hidden_size": 160,
    "intermediate_size": 342,
    "num_heads": 2,
    "out_hidden_size": 256,
    "fullatt_block_indexes": [7],
}


def save_checkpoint(out: Path) -> Path:
    """Write the checkpoint as a Hugging Face folder, always with the same weights."""
    shutil.copytree(PUBLISHED, out)
    (out / "chat_template.jinja").write_text(chat_template(), encoding="utf-8")
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["vision_config"] |= VISION
    (out / "config.json").write_text(json.dumps(config | TEXT, indent=1), encoding="utf-8")
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(out), dtype=torch.bfloat16)
    model.save_pretrained(out)
    return out
