"""Hugging Face configs → shapes, held to the catalogue's networks, which were written by hand."""

import json

import pytest

from accsim.base.errors import InputError
from accsim.files.workload import load_workload

pytest.importorskip("torch")
pytest.importorskip("transformers")

from accsim.traces.capture.hf_config import capture_config


def test_bert_is_the_catalogues_encoder_and_its_pooler(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "evil.Code"}}))
    mine, known = capture_config(file).workload, load_workload("bert-base")
    assert [x.name for x in mine.layers[:-1]] == [x.name for x in known]
    assert [x.op for x in mine.layers[:-1]] == [x.op for x in known]
    assert mine.layers[-1].name == "pooler.dense"
    assert mine.params == 109_482_240  # the catalogue's note of BertModel


def test_gpt2_and_llama_are_the_catalogues_but_for_the_heads_tokens():
    """The catalogue computes the head for the last token only."""
    gpt2 = capture_config(
        {"model_type": "gpt2"}, ["input_ids=int:1x1024:50257"], head="AutoModelForCausalLM"
    ).workload
    known = load_workload("gpt2")
    assert gpt2.params == known.params == 124_439_808
    assert gpt2.macs - known.macs == 1023 * 768 * 50257
    sizes = {
        "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    }  # fmt: skip
    llama = capture_config(
        {"model_type": "llama", **sizes}, ["input_ids=int:1x2048:128256"],
        head="AutoModelForCausalLM", dtype="bfloat16",
    ).workload  # fmt: skip
    known = load_workload("llama-3-8b-prefill")
    assert llama.params == known.params == 8_030_261_248
    products = [x for x in llama if not x.name.startswith("model.rotary_emb")]
    assert sum(x.macs for x in products) - known.macs == 2047 * 4096 * 128256
    assert {x.dtype for x in products} == {"bf16"}


@pytest.mark.parametrize(("kind", "known"), [("vit", "vit-b-16"), ("resnet", "resnet50")])
def test_images_take_the_configs_size(kind, known):
    mine = capture_config({"model_type": kind}).workload
    assert mine.macs == pytest.approx(load_workload(known).macs, rel=6e-4)  # heads differ


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        ({"model_type": "brt"}, {}, "one that transformers knows, did you mean"),
        ({}, {}, "one that transformers knows"),
        ({"model_type": "bert"}, {"head": "pipeline"}, "head must be a class such as"),
        ({"model_type": "bert"}, {"dtype": "float"}, None),
        ({"model_type": "bert"}, {"dtype": "int9"}, "dtype must be float32"),
        ({"model_type": "bert", "hidden_size": 7}, {}, "cannot be built"),
        ({"model_type": "mixtral", "num_hidden_layers": 1}, {}, "cannot be captured|cannot run"),
    ],
)
def test_errors_are_one_line(config, more, message):
    if message is None:
        assert capture_config(config, **more).workload.layers
        return
    with pytest.raises(InputError, match=message) as caught:
        capture_config(config, **more)
    assert "\n" not in str(caught.value)
