import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from rarft.checkpoint.source import check_checkpoint
from rarft.errors import InputError
from rarft.models.qwen2_5_vl.per_completion import per_completion_batch
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.synthetic import tiny_model


def test_auto_classes_reload_the_model(tmp_path, prompts):
    built = tiny_model.build_processor()
    original = tiny_model.build_model(built.tokenizer, seed=1)
    for part in (original, built):
        part.save_pretrained(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    model_inputs, _ = per_completion_batch([(prompts[0], torch.tensor([5, 6]))], 0)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**model_inputs).logits, original.eval()(**model_inputs).logits)
    text = "Find: a red ring slides; 12.54 to 17.83 ä 猫"
    assert processor.tokenizer.decode(processor.tokenizer(text)["input_ids"]) == text


def test_special_token_ids(tiny):
    tokenizer = tiny[1].tokenizer
    ids = tokenizer.convert_tokens_to_ids(list(tiny_model.SPECIAL_TOKENS))
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert len(tokenizer) == ids[-1] + 1
    assert tokenizer("<|video_pad|>")["input_ids"] == [tiny[0].config.video_token_id]


def test_packaged_tokenizer_is_reproducible(tiny):
    built = tiny_model.build_tokenizer()
    assert built.get_vocab() == tiny[1].tokenizer.get_vocab()


def test_prompt_config_round_trip(tmp_path):
    settings = PromptConfig("Find {query}", 1.0, 50_000, 1000, 7)
    settings.save(tmp_path)
    assert PromptConfig.load(str(tmp_path)) == settings
    (tmp_path / "rarft.json").write_text("{")
    with pytest.raises(InputError, match=r"rarft\.json: cannot be read"):
        PromptConfig.load(str(tmp_path))


def test_check_checkpoint_errors(tmp_path):
    with pytest.raises(InputError, match=r"no readable config\.json"):
        check_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="is a llama model"):
        check_checkpoint(str(tmp_path))
    (tmp_path / "checkpoint-final").mkdir()
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"did you mean .*/checkpoint-final\?"):
        check_checkpoint(str(tmp_path))
    with pytest.raises(InputError, match="no such checkpoint"):
        check_checkpoint(str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"^org/model: not in the local cache of the Hub, and HF_HUB_OFFLINE is set"):
        check_checkpoint("org/model")
