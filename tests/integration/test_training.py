"""Short training runs of the tiny model, and errors that are detected before training."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import msgspec
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from helpers.paths import ROOT
from helpers.training import train
from rarft.annotations.schema import read_samples
from rarft.checkpoint.source import checkpoint_path
from rarft.evaluation.generate import Predictor
from rarft.models.qwen2_5_vl.load import load_model
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.prompts import load_prompt_template
from rarft.training import tracking
from rarft.training import trainer as trainer_module
from rarft.training.config import build_config
from rarft.training.data import make_row, pad_to_batch, stratified_shuffle
from rarft.training.settings_parser import parse_settings


@pytest.fixture(scope="module")
def trained(validated, tmp_path_factory):
    return train(validated, tmp_path_factory.mktemp("trained"), "--max_steps", "3")


def test_final_checkpoint_loads_and_differs(trained, tiny, validated):
    checkpoint, _ = trained
    AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    before = tiny[0].state_dict()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any("visual" in name for name in changed)
    assert any("language_model" in name for name in changed)
    prompt_config = PromptConfig.load(str(checkpoint))
    assert prompt_config == PromptConfig.load("tiny")
    samples = read_samples(str(validated))[:3]
    assert len(Predictor(str(checkpoint), prompt_config).predict(samples)) == 3


def test_metrics_have_names_of_guide(trained):
    _, entries = trained
    logged = [entry for entry in entries if "reward" in entry]
    assert [entry["step"] for entry in logged] == [1, 2, 3]
    for entry in logged:
        terms = [entry[f"rewards/{name}_reward"] for name in ("format", "refuse_iou", "explain_correction")]
        assert entry["reward"] == pytest.approx(sum(terms), abs=1e-4)
        assert entry["kl"] >= 0
        assert 0 < entry["completion_length"] <= 64
        assert entry["generation_entropy"] == entry["entropy"] > 0


def test_prompt_sharing_does_not_change_training(trained, validated, tmp_path):
    shared, entries = trained
    plain, plain_entries = train(validated, tmp_path, "--max_steps", "3", "--prompt_sharing", "off")
    for name in ("loss", "grad_norm", "kl", "reward"):
        assert [entry[name] for entry in plain_entries if name in entry] == pytest.approx(
            [entry[name] for entry in entries if name in entry], rel=1e-2, abs=1e-4
        )
    ours, theirs = (AutoModelForImageTextToText.from_pretrained(path).state_dict() for path in (shared, plain))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=2e-4, rtol=0)


def test_several_steps_per_generation(validated, tmp_path):
    flags = ("--max_steps", "2", "--gradient_accumulation_steps", "2", "--steps_per_generation", "4")
    _, entries = train(validated, tmp_path, *flags, "--fix_vit", "true")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoints" / "rarft" / "checkpoint-final")
    before = load_model("tiny", torch.float32).state_dict()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[2] for name in changed if ".visual." in name} == {"merger"}
    assert sum("reward" in entry for entry in entries) >= 1


def test_group_is_scored_on_its_own_video(validated, tmp_path):
    """Before the first update the policy is the reference. A KL above zero would mean that a video was mixed up."""
    flags = ("--max_steps", "2", "--gradient_accumulation_steps", "2", "--steps_per_generation", "4")
    _, entries = train(validated, tmp_path, *flags, "--learning_rate", "0")
    assert [entry["kl"] for entry in entries if "kl" in entry] == pytest.approx([0, 0], abs=1e-6)


def test_rows_of_another_prompt(validated, tmp_path, monkeypatch):
    def shuffled(batch):
        return {**batch, "video_prompts": batch["video_prompts"][::-1]}

    monkeypatch.setattr("trl.trainer.grpo_trainer.shuffle_sequence_dict", shuffled)
    with pytest.raises(RuntimeError, match="does not match its prompt"):
        train(validated, tmp_path, "--max_steps", "1")


def test_custom_reward_and_weights(validated, tmp_path):
    own = str(ROOT / "docs" / "examples" / "my_rewards.py")
    flags = ("--reward_funcs", "format", f"{own}:brevity", "explain_correction_contrastive")
    more = ("--reward_weights", "1", "0.5", "0", "--correction_baseline", "query")
    _, entries = train(validated, tmp_path, "--max_steps", "1", *flags, *more)
    (entry,) = [entry for entry in entries if "reward" in entry]
    assert 0 < entry["rewards/brevity"] <= 1
    assert entry["reward"] == pytest.approx(entry["rewards/format_reward"] + 0.5 * entry["rewards/brevity"], abs=1e-4)
    assert -1 <= entry["rewards/explain_correction_contrastive_reward"] <= 2
    assert "explain_correction_contrastive/explain" in entry


def test_completions_are_logged(validated, tmp_path, caplog):
    train(validated, tmp_path, "--max_steps", "3", "--log_completions_steps", "2")
    blocks = [record.message for record in caplog.records if "\nQuery: " in record.message]
    assert len(blocks) == 2
    for block in blocks:
        lines = block.splitlines()[1:]
        assert lines[1].startswith("Task Type: ")
        assert lines[2] == "Generated Completions (4):"
        assert [line[:6] for line in lines[3:7]] == ["  [1] ", "  [2] ", "  [3] ", "  [4] "]
        outcomes = lines[8].removeprefix("answers: [").removesuffix("]").split(", ")
        assert len(outcomes) == 4
        assert set(outcomes) <= {"segment", "refusal", "unreadable", "none"}
        terms = {name.strip(): json.loads(values.replace("-,", "null,").replace("-]", "null]"))
                 for name, _, values in (line.partition(": ") for line in lines[9:] if ": [" in line)}  # fmt: skip
        assert len(terms["reward_format"]) == len(terms["explain_correction/refusal_score"]) == 4
        refused = terms["explain_correction/refusal_score"]
        bonus = terms.get("explain_correction/correction_bonus", [None] * 4)
        for total, score, extra in zip(terms["reward_explain_correction"], refused, bonus, strict=True):
            assert total == pytest.approx(score + (extra or 0.0), abs=0.011)


def test_wandb_offline_without_credentials(validated, tmp_path, caplog, monkeypatch):
    """The run is offline, and has a table of completions."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.netrc
    flags = ("--max_steps", "2", "--report_to", "auto", "--log_completions_steps", "2")
    checkpoint, _ = train(validated, tmp_path, *flags)
    assert caplog.text.count("no W&B credentials, so its run is offline") == 1
    (run,) = (checkpoint.parent / "wandb").glob("offline-run-*")
    (table,) = (run / "files" / "media" / "table").glob("completions_*.table.json")
    content = json.loads(table.read_text())
    assert {"step", "prompt", "completion", "format_reward", "refuse_iou/iou", "advantage"} <= set(content["columns"])
    assert len(content["data"]) == 8
    file = next(run.glob("*.wandb"))
    for _ in range(100):  # W&B writes it after the run has ended
        if b"time_r1" in (records := file.read_bytes()):
            break
        time.sleep(0.1)
    assert b"time_r1" in records
    assert b"rarft" in records


def test_progress_in_the_status_of_a_trainjob(validated, tmp_path, monkeypatch):
    """`auto` reports to Kubeflow Trainer where it accepts reports, with the pod's token."""
    reports = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reports.append((self.headers["Authorization"], body["trainerStatus"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    (tmp_path / "token").write_text("secret")
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", f"http://127.0.0.1:{server.server_port}/status")
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_TOKEN", str(tmp_path / "token"))
        monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)  # without W&B
        train(validated, tmp_path, "--max_steps", "2", "--report_to", "auto")
        server.shutdown()
    assert {token for token, _ in reports} == {"Bearer secret"}
    first, last = reports[0][1], reports[-1][1]
    assert (first["progressPercentage"], last["progressPercentage"]) == (0, 100)
    assert last["estimatedRemainingSeconds"] == 0
    metrics = {each["name"]: float(each["value"]) for each in last["metrics"]}
    assert {"reward", "rewards/format_reward", "loss"} <= metrics.keys()


def test_bfloat16_trains(validated, tmp_path):
    _, entries = train(validated, tmp_path, "--max_steps", "1", "--bf16", "true")
    assert any("reward" in entry for entry in entries)


def test_greedy_ignores_sampling_of_checkpoint(validated, tmp_path):
    samples = read_samples(str(validated))[:4]
    expected = Predictor("tiny", PromptConfig.load("tiny")).predict(samples)
    model = load_model("tiny", torch.float32)
    model.generation_config.repetition_penalty = 1.5
    model.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(checkpoint_path("tiny")).save_pretrained(tmp_path)
    assert Predictor(str(tmp_path), PromptConfig.load("tiny")).predict(samples) == expected


def test_crop_is_in_prompt(validated):
    sample = read_samples(str(validated))[0]
    cropped = msgspec.structs.replace(sample, crop=(2.0, 6.0))
    template = load_prompt_template("rarft")
    text = make_row(cropped, template)["prompt"][0]["content"][1]["text"]
    assert "You see its part from 2.00 to 6.00 seconds." in text
    assert "its part" not in make_row(sample, template)["prompt"][0]["content"][1]["text"]


def test_stratified_shuffle(validated):
    samples = read_samples(str(validated))
    order = stratified_shuffle(samples, seed=0)
    assert sorted(sample.id for sample in order) == sorted(sample.id for sample in samples)
    kinds = [sample.task_type for sample in order]
    assert all(set(kinds[index : index + 2]) == {"answerable", "refusable"} for index in range(0, len(kinds), 2))
    assert [sample.id for sample in stratified_shuffle(samples, 0)] == [sample.id for sample in order]
    assert [sample.id for sample in stratified_shuffle(samples, 1)] != [sample.id for sample in order]


def test_pad_to_batch(validated):
    samples = read_samples(str(validated))[:5]
    assert [sample.id for sample in pad_to_batch(samples, 4)] == [sample.id for sample in samples + samples[:3]]
    assert len(pad_to_batch(samples[:1], 4)) == 4
    assert pad_to_batch(samples[:4], 4) == samples[:4]


def test_fewer_samples_than_a_batch(validated, tmp_path):
    few = tmp_path / "riq.jsonl"
    few.write_text("".join((validated / "riq.jsonl").read_text().splitlines(keepends=True)[:3]))
    _, entries = train(few, tmp_path, "--max_steps", "1", "--per_device_train_batch_size", "4")
    assert [entry["step"] for entry in entries if "reward" in entry] == [1]


def test_settings_of_preset_file_and_command_line(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("beta: 0.5\nlearning_rate: 3.0e-4\nreward_funcs: [format, refuse_iou]\n")
    settings = parse_settings(["--preset", "tiny", "--config", str(file), "--learning_rate", "1e-5"])
    assert (settings["learning_rate"], settings["beta"], settings["num_generations"]) == (1e-5, 0.5, 8)
    assert settings["reward_funcs"] == ["format", "refuse_iou"]


def test_batch_size_counts_prompts(tmp_path):
    config = build_config(parse_settings(["--preset", "tiny", "--per_device_train_batch_size", "3"]), tmp_path)
    assert (config.prompts_per_device, config.per_device_train_batch_size) == (3, 24)
    assert build_config(parse_settings(["--preset", "tiny", "--use_grpo", "false"]), tmp_path).loss_type == "bnpo"


def test_trl_compatibility_check(monkeypatch):
    trainer_module.check_trl_compat()
    monkeypatch.setattr(trainer_module.GRPOTrainer, "_generate_single_turn", lambda self, prompt_ids: None)
    with pytest.raises(RuntimeError, match=r"_generate_single_turn lacks .* requires trl 1\.16"):
        trainer_module.check_trl_compat()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--no_such_flag", "1"], "unrecognized arguments: --no_such_flag"),
        (["--learning_rate", "fast"], "--learning_rate"),
        (["--preset", "nope"], "--preset: invalid choice: 'nope' (choose from '1x24-lora'"),
        (["--preset", "tiny"], "--train_data_path: is missing"),
        (["--preset", "tiny", "--train_data_path", "DATA", "--reward_funcs", "nope"], "no such reward"),
        (["--preset", "tiny", "--train_data_path", "DATA", "--prompt_type", "nope"], "no such template"),
        (["--preset", "tiny", "--train_data_path", "DATA", "--max_prompt_length", "3"], "--max_prompt_length 3"),
        (["--preset", "tiny", "--train_data_path", "DATA", "--model_name_or_path", "./nope"], "no such checkpoint"),
        *(
            (["--preset", "tiny", "--train_data_path", "DATA", flag, value], flag)
            for flag, value in {
                "--num_generations": "1",
                "--per_device_train_batch_size": "0",
                "--temperature": "0",
                "--max_completion_length": "0",
                "--learning_rate": "-1",
                "--video_fps": "0",
                "--max_pixels": "5",
                "--loss_type": "nonsense",
                "--logging_nan_inf_filter": "true",
                "--reward_weights": "1",
                "--output_dir": "elsewhere",
                "--exp_name": "../elsewhere",
                "--eval_data_path": "./nope",
                "--eval_strategy": "steps",
                "--resume_from_checkpoint": "./nope",
                "--use_vllm": "true",
            }.items()
        ),
    ],
)
def test_error_is_one_line_before_training(main, validated, tmp_path, flags, message):
    code, _, error = main("train", *[str(validated) if flag == "DATA" else flag for flag in flags])
    assert code == 2
    last = error.strip().splitlines()[-1]
    assert last.startswith("rarft train: ")
    assert message in last
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
