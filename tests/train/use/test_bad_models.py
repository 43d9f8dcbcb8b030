"""Damaged, partial and wrong files of weights: one line says what is wrong, nothing is written."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as files

import train.__main__ as training
from arch_zoo import exchange
from train.use import weights

MODELS = Path(__file__).parent / "models"


@pytest.fixture
def model(tmp_path) -> Path:
    """A copy of a model that a test may damage."""
    return Path(shutil.copytree(MODELS / "llama", tmp_path / "model"))


def tensors_of(folder):
    return dict(files.load_file(folder / weights.WHOLE))


def refused(capsys, folder, *options):
    out = folder.parent / "runs" / "ext"
    code = training.main(["import", str(folder), "--out", str(out), *options])
    said = capsys.readouterr().err.strip()
    assert code == 2 and "\n" not in said, said
    assert not out.exists() and not list(folder.parent.glob("runs/.unfinished*"))
    return said


def change(folder, **values):
    path = folder / weights.CONFIG
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps(config))


def test_a_tensor_of_another_shape(model, capsys):
    tensors = tensors_of(model)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = np.zeros((28, 21), np.float32)
    files.save_file(tensors, model / weights.WHOLE)
    assert f"tensor {name}: its shape is [28, 21], not [28, 20]" in refused(capsys, model)


def test_a_tensor_that_is_missing(model, capsys):
    tensors = tensors_of(model)
    del tensors["model.norm.weight"]
    files.save_file(tensors, model / weights.WHOLE)
    said = refused(capsys, model)
    assert "tensor model.norm.weight: missing; its shape should be [20]" in said


def test_a_tensor_that_the_zoo_does_not_know(model, capsys):
    tensors = tensors_of(model) | {"model.layers.0.self_attn.q_proj.bias": np.zeros(24, np.float32)}
    files.save_file(tensors, model / weights.WHOLE)
    said = refused(capsys, model)
    assert "tensor model.layers.0.self_attn.q_proj.bias: the zoo's model has none like it" in said


def test_a_file_that_was_cut(model, capsys):
    content = (model / weights.WHOLE).read_bytes()
    (model / weights.WHOLE).write_bytes(content[: len(content) // 2])
    assert "model.safetensors: is damaged or no safetensors file" in refused(capsys, model)


def test_pickles_are_never_read(model, capsys, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    (model / weights.WHOLE).unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    said = refused(capsys, model)
    assert "pytorch_model.bin: only safetensors are read" in said and "save_pretrained" in said
    assert not (tmp_path / "opened").exists()


def test_a_folder_without_weights_and_without_a_config(model, capsys):
    (model / weights.WHOLE).unlink()
    assert "has no model.safetensors" in refused(capsys, model)
    (model / weights.CONFIG).unlink()
    assert "config.json: no such file" in refused(capsys, model)
    assert "is not a directory" in refused(capsys, model.parent / "nowhere")


def test_files_of_several_parts(model, capsys, tmp_path):
    tensors = tensors_of(model)
    first = dict(sorted(tensors.items())[:3])
    rest = {name: x for name, x in tensors.items() if name not in first}
    (model / weights.WHOLE).unlink()
    files.save_file(first, model / "a.safetensors")
    places = dict.fromkeys(first, "a.safetensors") | dict.fromkeys(rest, "b.safetensors")
    (model / weights.INDEX).write_text(json.dumps({"weight_map": places}))
    assert "b.safetensors: no such file" in refused(capsys, model)
    lost = dict(list(rest.items())[1:])
    files.save_file(lost, model / "b.safetensors")
    missing = next(iter(rest))
    assert f"b.safetensors: tensor {missing}: missing" in refused(capsys, model)
    files.save_file(rest, model / "b.safetensors")
    found = weights.read(model)[1]
    assert all((found[name] == x).all() for name, x in tensors.items())
    (model / weights.INDEX).write_text(json.dumps({"weight_map": {"x": "../b.safetensors"}}))
    assert "'../b.safetensors' is not in the same directory" in refused(capsys, model)
    (model / weights.INDEX).write_text(json.dumps({"weight_map": 3}))
    assert "weight_map is not an object of file names" in refused(capsys, model)


def test_large_models_get_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "LARGEST", 100)
    tensors = {name: np.full((5, 4), ord(name), np.float32) for name in "abc"}
    with weights.new_folder(tmp_path / "out") as folder:
        weights.write(folder, {weights.CONFIG: {"x": 1}}, tensors)
    assert len(list((tmp_path / "out").glob("model-0000*-of-00003.safetensors"))) == 3
    config, found = weights.read(tmp_path / "out")
    assert config == {"x": 1} and all((found[name] == x).all() for name, x in tensors.items())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architectures": ["BertModel"]}, "architectures = 'BertModel': known are"),
        ({"architectures": None}, "architectures = None: must name one class"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu': the zoo's model has 'silu'"),
        ({"attention_bias": True}, "attention_bias = True: the zoo's model has False"),
        ({"hidden_size": None}, "hidden_size = None: must be a number"),
        ({"hidden_size": "20"}, "hidden_size = '20': must be a number"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers = 2.5: must be a whole number"),
        (
            {"rope_parameters": {"rope_type": "yarn"}},
            "rope_type = 'yarn': the zoo's model has 'default' only",
        ),
        ({"rope_parameters": 3}, "rope_parameters = 3: must be an object"),
        ({"eos_token_id": 99}, "eos_token_id = 99: must be one of 29 ids"),
        ({"eos_token_id": 3}, "bos_token_id and eos_token_id are both 3"),
        ({"num_key_value_heads": 3}, "num_kv_heads=3: must be None or divide"),
        ({"vocab_size": 30}, "tensor model.embed_tokens.weight: its shape is [29, 20], not [30"),
    ],
)
def test_settings_that_the_zoo_does_not_have(model, capsys, values, said):
    change(model, **values)
    assert said in refused(capsys, model)


def test_settings_of_t5_that_the_zoo_does_not_have():
    config = json.loads((MODELS / "t5" / weights.CONFIG).read_text())
    for values, said in (
        ({"relative_attention_num_buckets": 16}, "relative_attention_num_buckets = 16"),
        ({"feed_forward_proj": "gelu"}, "with feed_forward_proj = 'gelu': the zoo has no such"),
        ({"decoder_start_token_id": 5}, "decoder_start_token_id = 5: the zoo's model has 0"),
    ):
        settings = exchange.ForeignConfig(config | values)
        with pytest.raises(exchange.ConfigError, match=said):
            exchange.find(settings).config(settings)


def test_nothing_is_overwritten(model, capsys, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes").write_text("mine")
    assert training.main(["import", str(model), "--out", str(out)]) == 2
    assert "exists already; nothing is overwritten" in capsys.readouterr().err
    assert (out / "notes").read_text() == "mine" and len(list(out.iterdir())) == 1


def test_a_vocabulary_that_has_more_ids_than_the_model(model, capsys, tiny_vocabulary):
    shutil.copyfile(tiny_vocabulary, model / "spiece.model")
    assert "and the model 29" in refused(capsys, model)
    (model / "spiece.model").unlink()
    (model / "tokenizer.json").write_text("{}")
    assert "tokenizer.json: cannot be read" in refused(capsys, model)
