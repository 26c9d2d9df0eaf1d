"""The check that a model's weights fit into the memory of a GPU (decision D26)."""

import functools
import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch

from rarft.errors import InputError
from rarft.models.qwen2_5_vl.load import count_parameters
from rarft.training import preflight
from rarft.training.settings_parser import parse_settings

# Published models: hidden size, layers, heads, key/value heads, intermediate size, vocabulary; the vision tower's
# intermediate size.
SHAPES = {
    "3B": (2048, 36, 16, 2, 11008, 151936, 3420),
    "7B": (3584, 28, 28, 4, 18944, 152064, 3420),
    "32B": (5120, 64, 40, 8, 27648, 152064, 3456),
    "72B": (8192, 80, 64, 8, 29568, 152064, 3456),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders with only the `config.json` of the published models, by size."""
    folders = {}
    for size, (hidden, layers, heads, kv_heads, intermediate, vocabulary, vision_intermediate) in SHAPES.items():
        folders[size] = tmp_path_factory.mktemp(size)
        config = {
            "model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "intermediate_size": intermediate, "vocab_size": vocabulary,
            "tie_word_embeddings": size == "3B",
            "vision_config": {
                "out_hidden_size": hidden, "depth": 32, "hidden_size": 1280, "num_heads": 16,
                "intermediate_size": vision_intermediate,
            },
        }  # fmt: skip
        (folders[size] / "config.json").write_text(json.dumps(config))
    return folders


@pytest.fixture(scope="module")
def counted():
    return functools.cache(count_parameters)


@pytest.fixture
def gpu(monkeypatch, counted):
    """Simulate two GPUs with this many bytes; this process uses the second one."""

    def simulate(total_memory):
        monkeypatch.setenv("LOCAL_RANK", "1")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: total_memory > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        properties = {1: SimpleNamespace(total_memory=total_memory)}
        monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
        monkeypatch.setattr(preflight, "count_parameters", counted)

    return simulate


def test_parameter_counts_of_published_models(models, counted):
    assert {size: counted(str(folder)) for size, folder in models.items()} == preflight.PUBLISHED


A100_80, A100_40, L4, H200 = 84_987_740_160, 42_297_131_008, 23_609_475_072, 150_110_011_392
SLOW = "--ds3_gather_for_generation false"


@pytest.mark.parametrize(
    ("size", "memory", "flags", "message"),
    [
        ("72B", A100_80, [], f"all 146.8 GB of weights on each GPU, and this GPU has 85.0 GB; use "
                             f"Qwen2.5-VL-32B (66.9 GB), or {SLOW}, which is slow"),
        ("72B", A100_80, ["--deepspeed", "zero3"], f"146.8 GB of weights ... 85.0 GB ... , or {SLOW}, which"),
        ("72B", A100_80, SLOW.split(), None),
        ("72B", A100_80, [*SLOW.split(), "--use_vllm", "true"], f"146.8 GB ... or {SLOW} without --use_vllm, which"),
        ("72B", H200, [], None),
        ("72B", A100_80, ["--use_cpu", "true"], None),
        ("72B", 0, [], None),
        ("32B", A100_80, [], None),
        ("32B", A100_40, [], "66.9 GB of weights ... 42.3 GB; use Qwen2.5-VL-7B (16.6 GB), or"),
        ("7B", A100_80, [], None),
        ("7B", L4, [], None),
        ("7B", L4, ["--bf16", "false", "--fp16", "true"], None),
        ("7B", L4, ["--deepspeed", "none"], f"33.2 GB of weights ... 23.6 GB; use Qwen2.5-VL-3B (15.0 GB), or {SLOW} "
                                            "with --deepspeed zero3, which"),
        ("7B", L4, ["--deepspeed", "none", "--use_peft", "true"], None),
        ("7B", L4, ["--bf16", "false"], "33.2 GB of weights"),
        ("7B", L4, ["--deepspeed", "zero2", *SLOW.split()], None),
        ("7B", 4_000_000_000, ["--deepspeed", "zero2", *SLOW.split()], f"16.6 GB ... 4.0 GB; use {SLOW} with"),
    ],
)  # fmt: skip
def test_weights_and_memory(models, gpu, size, memory, flags, message):
    gpu(memory)
    settings = parse_settings(["--model_name_or_path", str(models[size]), *flags])
    if message is None:
        preflight.check_model_fits(settings)
        return
    with pytest.raises(InputError) as error:
        preflight.check_model_fits(settings)
    parts = message.split(" ... ")
    assert str(error.value).startswith(f"--model_name_or_path {models[size]}: ")
    assert [part for part in parts if part not in str(error.value)] == []


@pytest.mark.parametrize(
    ("preset", "world_size", "size", "memory"),
    [("8xA100-80", 8, "7B", A100_80), ("8xH100-80", 8, "7B", A100_80), ("paper", 8, "7B", A100_80),
     ("1x80-lora", 1, "7B", A100_80), ("1x24-lora", 1, "3B", L4)],
)  # fmt: skip
def test_presets_do_not_require_flash_attention(monkeypatch, models, gpu, preset, world_size, size, memory):
    gpu(memory)
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    assert importlib.util.find_spec("flash_attn") is None
    flags = ["--preset", preset, "--train_data_path", "data", "--model_name_or_path", str(models[size])]
    preflight.check_settings(parse_settings(flags))


def test_model_is_checked_before_data(main, models, gpu):
    gpu(A100_80)
    code, _, error = main("train", "--train_data_path", "missing", "--model_name_or_path", models["72B"])
    assert code == 2
    (line,) = error.strip().splitlines()
    assert "146.8 GB" in line


def test_parameter_count_of_model_in_store(tmp_path, models, monkeypatch):
    """Only `config.json` is downloaded."""
    boto3 = pytest.importorskip("boto3")
    from helpers.s3_servers import buckets

    with buckets("moto", tmp_path, "models"):
        config = (models["7B"] / "config.json").read_bytes()
        boto3.client("s3").put_object(Bucket="models", Key="seven/config.json", Body=config)
        assert count_parameters("s3://models/seven") == preflight.PUBLISHED["7B"]


def test_hub_name_without_configuration(gpu):
    gpu(A100_80)
    with pytest.raises(InputError, match="--model_name_or_path nobody/nothing: cannot load the configuration"):
        preflight.check_model_fits(parse_settings(["--model_name_or_path", "nobody/nothing"]))
