"""Every flag of the training guide, verbatim, and the presets for its table of machines."""

import pytest
import yaml

from rarft.errors import InputError
from rarft.training.config import build_config, frame_sampling
from rarft.training.deepspeed_config import check_gathers_weights, deepspeed_file, packaged_deepspeed
from rarft.training.presets import load_preset, preset_names
from rarft.training.settings_parser import parse_settings
from rarft.video.decode import FrameSampling

# Flag lines of the guide, verbatim.
LINES = """
--model_name_or_path Qwen/Qwen2.5-VL-7B-Instruct
--prompt_type rarft
--num_generations 4
--temperature 1.0
--beta 0.05
--use_grpo true
--learning_rate 5e-7
--num_train_epochs 1
--per_device_train_batch_size 1
--gradient_accumulation_steps 1
--max_grad_norm 1.0
--max_completion_length 512
--max_prompt_length 2048
--bf16 true
--gradient_checkpointing true
--deepspeed scripts/configs/zero3_offload.json
--resume_from_checkpoint checkpoints/rarft/qwen_7b_final/checkpoint-200
--reward_funcs format refuse_iou my_custom_reward
--model_name_or_path Qwen/Qwen2.5-VL-72B-Instruct
--fix_vit true
--use_peft true
--lora_r 64
--lora_alpha 16
--lora_target_modules q_proj k_proj v_proj o_proj
--num_generations 2
--max_completion_length 256
--attn_implementation flash_attention_2
--max_pixels 6422528
--gradient_accumulation_steps 8
--temperature 0.7
--per_device_train_batch_size 2
--gradient_accumulation_steps 2
--gradient_accumulation_steps 4
--evaluation_strategy steps
--eval_steps 500
--eval_data_path dataset/annotations/val_riq.json
--exp_name rarft/qwen_7b_final
--train_data_path ./dataset/annotations/hi_vtg_train.json
""".strip().splitlines()

# Defaults of the guide's core parameters.
DEFAULTS = {
    "model_name_or_path": "Qwen/Qwen2.5-VL-7B-Instruct", "prompt_type": "rarft", "num_generations": 4,
    "temperature": 1.0, "beta": 0.05, "use_grpo": True, "learning_rate": 5e-7, "num_train_epochs": 1,
    "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_grad_norm": 1.0,
    "max_completion_length": 512, "max_prompt_length": 2048, "bf16": True, "gradient_checkpointing": True,
    "deepspeed": "zero3_offload", "max_pixels": 12845056, "use_peft": False, "lora_r": 64, "lora_alpha": 16,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "fix_vit": False, "curriculum": False,
    "reward_funcs": ["format", "refuse_iou", "explain_correction"],
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_guide_flag_on_command_line_and_in_yaml(line, tmp_path):
    flag, *values = line.split()
    name = {"evaluation_strategy": "eval_strategy"}.get(flag.removeprefix("--"), flag.removeprefix("--"))
    parsed = parse_settings(line.split())
    expected = yaml.safe_load(values[0])
    got = parsed[name]
    if isinstance(got, list):
        assert got == values
    elif isinstance(got, bool):
        assert got is expected
    else:
        assert float(got) == float(values[0]) if isinstance(got, int | float) else got == values[0]
    (tmp_path / "own.yaml").write_text(f"{flag.removeprefix('--')}: {values if len(values) > 1 else values[0]}\n")
    assert parse_settings(["--config", str(tmp_path / "own.yaml")]) == parsed


def test_guide_defaults():
    parsed = parse_settings([])
    assert {name: parsed[name] for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    ("name", "world_size", "expected"),
    [
        (
            "8xA100-80", 8,
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "num_generations": 4,
             "deepspeed": "zero3", "attn_implementation": None},
        ),
        ("8xH100-80", 16, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}),
        (
            "8xA100-40", 8,
            {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "deepspeed": "zero3_offload"},
        ),
        ("4xA100-80", 4, {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}),
        ("1x80-lora", 1, {"use_peft": True, "deepspeed": "none", "num_generations": 8}),
        ("1x24-lora", 1, {"use_peft": True, "model_name_or_path": "Qwen/Qwen2.5-VL-3B-Instruct"}),
    ],
)  # fmt: skip
def test_presets(monkeypatch, name, world_size, expected):
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    parsed = parse_settings(["--preset", name])
    assert {key: parsed[key] for key in expected} == expected


# The published training: flags of its script, then defaults of its code and of its TRL release.
PAPER = {
    "model_name_or_path": "Boshenxx/Time-R1-7B", "deepspeed": "zero3_offload", "max_prompt_length": 8192,
    "max_completion_length": 200, "num_generations": 8, "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1, "logging_steps": 1, "bf16": True, "gradient_checkpointing": True,
    "attn_implementation": "flash_attention_2", "fix_vit": True, "num_train_epochs": 3, "temperature": 1.0,
    "curriculum": False, "save_strategy": "steps", "save_steps": 50, "save_total_limit": 3,
    "reward_funcs": ["format", "refuse_iou", "explain_correction_contrastive"], "reward_weights": None,
    "prompt_type": "rarft-text-first", "use_grpo": False, "learning_rate": 1e-6, "beta": 0.04, "epsilon": 0.2,
    "epsilon_high": None, "num_iterations": 1, "lr_scheduler_type": "linear", "warmup_steps": 0, "max_grad_norm": 1.0,
    "weight_decay": 0.0, "use_peft": False, "queries_per_item": "pair", "refusable_pool": 3, "max_pixels": 12845056,
    "video_total_pixels": None,
}  # fmt: skip


def test_preset_paper(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "8")
    parsed = parse_settings(["--preset", "paper"])
    assert {name: parsed[name] for name in PAPER} == PAPER
    assert frame_sampling(parsed) == FrameSampling(2.0, 3584 * 28 * 28, 16 * 28 * 28)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(InputError, match="paper: requires 8 processes"):
        parse_settings(["--preset", "paper"])
    config = build_config({**parsed, "deepspeed": "none", "bf16": False, "report_to": ["none"]}, tmp_path)
    assert (config.loss_type, config.prompts_per_device) == ("bnpo", 1)


def test_preset_for_other_machines(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(InputError, match=r"8xA100-80: requires 8 processes.* has 1; .*--nproc_per_node 8"):
        load_preset("8xA100-80")


def test_every_preset_is_valid(monkeypatch, tmp_path):
    for name in preset_names():
        monkeypatch.setenv("WORLD_SIZE", "8")
        settings = parse_settings(["--preset", name, "--deepspeed", "none", "--bf16", "false", "--report_to", "none"])
        monkeypatch.setenv("WORLD_SIZE", "1")
        assert build_config(settings, tmp_path).prompts_per_device == settings["per_device_train_batch_size"]


def test_deepspeed_configuration_that_saves_partitions(tmp_path):
    for name in packaged_deepspeed():
        check_gathers_weights(deepspeed_file(name))
    own = tmp_path / "own.json"
    own.write_text('{"zero_optimization": {"stage": 3}}')
    with pytest.raises(InputError, match="stage3_gather_16bit_weights_on_model_save: true"):
        check_gathers_weights(str(own))
    own.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        check_gathers_weights(str(own))


def test_deepspeed_file_by_name_or_path(tmp_path):
    assert deepspeed_file("none") is None
    assert deepspeed_file("scripts/configs/zero3_offload.json") == deepspeed_file("zero3_offload")
    own = tmp_path / "zero2.json"
    own.write_text("{}")
    assert deepspeed_file(str(own)) == str(own)
    with pytest.raises(InputError, match="no such file; pass a path, one of zero2, zero3, zero3_offload, or none"):
        deepspeed_file("scripts/configs/zero4.json")
