"""Settings in YAML and on the command line: each kind of value, from where it is typed to TrainingConfig."""

import json
from dataclasses import replace

import pytest
import yaml

from pipelines.local import LocalRun, _parameters
from pipelines.preflight import check
from pipelines.training_flags import training_yaml
from rarft import steps
from rarft.cluster import train as cluster_train
from rarft.errors import InputError
from rarft.training.config import build_config
from rarft.training.settings_parser import parse_settings, yaml_to_arguments

# YAML, the same on the command line, and the attributes of TrainingConfig.
VALUES = [
    (
        "gradient_checkpointing_kwargs: {use_reentrant: false}",
        ["--gradient_checkpointing_kwargs", '{"use_reentrant": false}'],
        {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
    ),
    (
        "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs:\n  min_lr: 1e-7",
        ["--lr_scheduler_type=cosine_with_min_lr", '--lr_scheduler_kwargs={"min_lr": 1e-7}'],
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-7}},
    ),
    (
        "generation_kwargs: {top_k: 5, bad_words_ids: [[1, 2], [3]], forced_eos_token_id: null}",
        ["--generation_kwargs", '{"top_k": 5, "bad_words_ids": [[1, 2], [3]], "forced_eos_token_id": null}'],
        {"generation_kwargs": {"top_k": 5, "bad_words_ids": [[1, 2], [3]], "forced_eos_token_id": None}},
    ),
    (
        "model_init_kwargs: {revision: '1.10', name: tōkyō}",
        ["--model_init_kwargs", '{"revision": "1.10", "name": "tōkyō"}'],
        {"model_init_kwargs": {"revision": "1.10", "name": "tōkyō"}},
    ),
    (
        "reward_funcs: [format, refuse_iou]\nreward_weights: [0.5, 1e0]\nreport_to: [tensorboard]",
        ["--reward_funcs", "format", "refuse_iou", "--reward_weights", "0.5", "1e0", "--report_to", "tensorboard"],
        {"reward_funcs": ["format", "refuse_iou"], "reward_weights": [0.5, 1.0], "report_to": ["tensorboard"]},
    ),
    ("report_to: tensorboard", ["--report_to=tensorboard"], {"report_to": ["tensorboard"]}),
    ("learning_rate: 1e-5", ["--learning-rate", "1e-5"], {"learning_rate": 1e-5}),
    ("learning-rate: 1.0e-5", ["--learning_rate", "1e-5"], {"learning_rate": 1e-5}),
    ("fix_vit: true\nbf16: no", ["--fix_vit", "--no_bf16"], {"fix_vit": True, "bf16": False}),
    (
        "fix_vit: ON\nbf16: off\nprompt_sharing: off",
        ["--fix_vit", "on", "--bf16", "off", "--prompt_sharing", "off"],
        {"fix_vit": True, "bf16": False, "prompt_sharing": "off"},
    ),
    ("save_strategy: no", ["--save_strategy", "no"], {"save_strategy": "no"}),
    ("evaluation_strategy: no", ["--evaluation_strategy=no"], {"eval_strategy": "no"}),
    ("run_name: 1.10", ["--run_name", "1.10"], {"run_name": "1.10"}),
    ("run_name: ''", ["--run_name="], {"run_name": ""}),
    ("deepspeed: null", ["--deepspeed", "null"], {"deepspeed": None}),
    ("deepspeed: zero3\ndeepspeed:", ["--deepspeed", "zero3", "--deepspeed", "null"], {"deepspeed": None}),
    ("attn_implementation: ~", ["--attn_implementation", "null"], {"attn_implementation": None}),
    ("reward_weights: null", ["--reward_weights", "null"], {"reward_weights": None}),
    ("", [], {"beta": 0.02}),
]
TINY = ["--preset", "tiny"]


def attributes(settings, names, tmp_path):
    config = build_config(settings, tmp_path)
    return {name: getattr(config, name) for name in names}


@pytest.mark.parametrize(("text", "flags", "expected"), VALUES)
def test_yaml_and_command_line_agree(tmp_path, text, flags, expected):
    (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
    settings = parse_settings([*TINY, "--config", str(tmp_path / "own.yaml")])
    assert settings == parse_settings([*TINY, *flags])
    assert attributes(settings, expected, tmp_path) == expected


@pytest.mark.parametrize(("text", "flags", "expected"), VALUES)
def test_pipeline_carries_every_value(tmp_path, monkeypatch, text, flags, expected):
    """`-p training=`, `rarft run -- FLAGS`, the training step, and the arguments of a cluster job agree."""
    calls = []
    monkeypatch.setattr(steps, "train", lambda arguments: calls.append(arguments) or "checkpoint")
    monkeypatch.setattr(steps, "_trained", lambda checkpoint, settings: checkpoint)

    class FakeLauncher:
        def __init__(self, _api, _namespace, kind, job):
            calls.append(kind.manifest(job)["spec"]["trainer"]["args"])

        def exists(self):
            return True

        def run(self):
            pass

    monkeypatch.setattr(cluster_train, "Launcher", FakeLauncher)
    monkeypatch.setattr(cluster_train, "connect", lambda: None)
    monkeypatch.setattr(cluster_train, "current_namespace", lambda: "lab")
    by_run = training_yaml("tiny", flags, None)
    for training in (f"preset: tiny\n{text}", by_run):
        check({"training": training})
        inputs = {"train_data_path": "s3://runs/data", "encoder": None}
        steps.train_from_yaml(training, inputs, "s3://runs/a")
        job = {"name": "one", "image": "i", "gpus": 0}
        steps.train_on_cluster(training, inputs, "s3://runs/a", "trainjob", job)
    assert len(calls) == 4
    for arguments in calls:
        settings = parse_settings(json.loads(json.dumps(arguments)))
        assert (settings["train_data_path"], settings["resume_from_checkpoint"]) == ("s3://runs/data", "auto")
        assert attributes(settings, expected, tmp_path) == expected


def test_run_validates_at_the_rate_of_training(tmp_path):
    (tmp_path / "train.json").write_text("[]")
    options = LocalRun(annotations=str(tmp_path / "train.json"), out=str(tmp_path), preset="tiny")
    assert "video_fps" not in _parameters(options, tmp_path)
    flags = ["--video_fps", "4"]
    assert _parameters(replace(options, training_flags=flags), tmp_path)["video_fps"] == 4.0
    given = replace(options, training_flags=flags, assignments=["video_fps=8"])
    assert _parameters(given, tmp_path)["video_fps"] == 8.0


MISTAKES = [
    ("beta: {a: 1}", "beta: must be one value, not a mapping"),
    ("beta: [0.1, 0.2]", "beta: must be one value, not a list"),
    ("beta: high", "beta: invalid float value: 'high'"),
    ("beta: null", "beta: must be one value, not null; leave the setting out for its default"),
    ("max_steps: 1.5", "max_steps: invalid int value: '1.5'"),
    ("bf16: maybe", "bf16: Truthy value expected"),
    ("save_strategy: never", "save_strategy: invalid choice: 'never' (choose from 'no', 'steps'"),
    ("exp_name: {a: 1}", "exp_name: must be one value, not a mapping"),
    ("reward_funcs: {format: 1}", "reward_funcs: must be a list, not a mapping"),
    ("reward_funcs: [[format]]", "reward_funcs: must be a list of single values"),
    ("reward_funcs: []", "reward_funcs: expected at least one argument"),
    ("reward_weights: [1, much]", "reward_weights: invalid float value: 'much'"),
    ("generation_kwargs: [1]", "generation_kwargs: must be a mapping, not a list"),
    ("generation_kwargs: 5", "generation_kwargs: must be a mapping in JSON, such as"),
    ("deepspeed: {zero_optimization: {stage: 3}}", "deepspeed: must be one value, not a mapping"),
    ("betaa: 0.1", "betaa: no such setting; did you mean beta?"),
    ("nonsense: 1", "nonsense: no such setting"),
    ("preset: nope", "preset: invalid choice: 'nope'"),
    ("[beta, 0.1]", "must map settings to values, such as `beta: 0.05`"),
    ("beta: [", "invalid YAML"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistake_names_source_and_setting(tmp_path, text, message):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(InputError) as file_error:
        parse_settings(["--config", str(tmp_path / "own.yaml")])
    with pytest.raises(InputError) as pipeline_error:
        check({"training": text})
    assert str(file_error.value).startswith(f"--config {tmp_path}/own.yaml: {message}")
    assert str(pipeline_error.value).startswith(f"-p training: {message}")


def test_mistake_in_json_flag():
    with pytest.raises(InputError, match=r"^--generation_kwargs: must be a mapping in JSON, .* not \{top_k: 5\};"):
        parse_settings(["--generation_kwargs", "{top_k: 5}"])


def test_precedence_of_settings(tmp_path):
    (tmp_path / "own.yaml").write_text("preset: tiny\nbeta: 0.3\nmax_completion_length: 32\n")
    settings = parse_settings(["--config", str(tmp_path / "own.yaml"), "--beta", "0.4"])
    assert (settings["beta"], settings["max_completion_length"], settings["num_generations"]) == (0.4, 32, 8)


def test_settings_file_that_names_another(tmp_path):
    (tmp_path / "own.yaml").write_text("config: other.yaml\n")
    with pytest.raises(InputError, match=r"own\.yaml: config: a settings file cannot name another one"):
        parse_settings(["--config", str(tmp_path / "own.yaml")])


def test_yaml_to_arguments():
    text = yaml.safe_dump({"generation_kwargs": {"top_k": 5}, "reward_funcs": ["format"], "exp_name": "--odd"})
    assert sorted(yaml_to_arguments(text, "training")) == [
        "--exp_name=--odd", '--generation_kwargs={"top_k": 5}', "--reward_funcs", "format"
    ]  # fmt: skip
