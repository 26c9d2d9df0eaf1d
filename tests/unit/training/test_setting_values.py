"""Odd values of single settings: refused in one line before the model is loaded, or accepted as what they mean."""

import pytest

from rarft.errors import InputError
from rarft.training.config import build_config
from rarft.training.setting_values import check_buildable, check_values, experiment_name
from rarft.training.settings_parser import parse_settings

BASE = ["--preset", "tiny", "--train_data_path", "d", "--use_cpu", "true", "--report_to", "none"]


def settings_of(*flags):
    return parse_settings([*BASE, *flags], check_gpus=False)


@pytest.mark.parametrize(
    "flags",
    [
        "--save_strategy steps --save_steps 0",
        "--save_strategy steps --save_steps -1",
        "--logging_steps 0",
        "--eval_strategy steps --eval_steps 0",
        "--seed -1",
        "--seed 4294967296",
        "--data_seed -1",
        "--scale_rewards maybe",
        "--use_liger_kernel true",
        "--push_to_hub true",
        "--auto_find_batch_size true",
        "--learning_rate 1e400",
        "--learning_rate nan",
        "--weight_decay inf",
        "--beta nan",
        "--lora_dropout nan",
        "--exp_name ../../x",
        "--exp_name /x",
        "--exp_name .",
        "--exp_name a\nb",
        f"--exp_name {'x' * 300}",
    ],
)
def test_check_values_refuses(flags):
    words = flags.split(" ")
    flag = words[-2]
    with pytest.raises(InputError, match=rf"^{flag}\b") as raised:
        check_values(settings_of(*words))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "flags",
    ["--save_steps 0", "--save_strategy steps --save_steps 0.5", "--seed 4294967295", "--exp_name a/b", "--seed 0"],
)
def test_check_values_accepts(flags):
    """`save_steps` is not used by the preset, which saves by epochs."""
    settings = settings_of(*flags.split())
    settings["save_strategy"] = "epoch" if flags == "--save_steps 0" else settings["save_strategy"]
    check_values(settings)


def test_experiment_name_from_environment(monkeypatch):
    monkeypatch.setenv("EXP_NAME", "../x")
    with pytest.raises(InputError, match=r"^EXP_NAME \.\./x: must stay inside"):
        experiment_name(settings_of())
    assert experiment_name(settings_of("--exp_name", "a")) == "a"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--lr_scheduler_type", "cosine_with_min_lr"),
        ("--optim", "adamw_bnb_8bit"),
        ("--optim", "galore_adamw"),
        ("--report_to", "no-such-tracker"),
        ("--adam_beta1", "1.5"),
        ("--adam_epsilon", "-1"),
    ],
)
def test_check_buildable_refuses(tmp_path, flag, value):
    with pytest.raises(InputError, match=rf"^({flag} {value}|--optim adamw\w*): ") as raised:
        check_buildable(build_config(settings_of(flag, value), tmp_path))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--lr_scheduler_type", "cosine_with_min_lr", "--lr_scheduler_kwargs", '{"min_lr_rate": 0.1}'],
        ["--optim", "sgd"],
    ],
)
def test_check_buildable_accepts(tmp_path, flags):
    check_buildable(build_config(settings_of(*flags), tmp_path))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", "group"),
        ("false", "none"),
        ("False", "none"),
        ("batch", "batch"),
        ("group", "group"),
        ("none", "none"),
    ],
)
def test_scale_rewards(tmp_path, value, expected):
    assert build_config(settings_of("--scale_rewards", value), tmp_path).scale_rewards == expected
