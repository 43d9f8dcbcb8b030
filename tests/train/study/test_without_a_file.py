"""Studies that are declared on the command line."""

import pytest

from train.__main__ import main, parse
from train.records import InputError
from train.study.directory import load, write_manifest


def cells(*arguments):
    return [cell.run_id for cell in parse(["plan", *arguments]).load().cells]


def test_a_preset_makes_a_study_of_any_architectures_and_sizes():
    options = ("--preset", "cpu", "--architectures", "gpt2,glu", "--sizes", "nano", "micro")
    assert cells("mine", *options) == [
        "gpt2-micro-s0",
        "glu-micro-s0",
        "gpt2-nano-s0",
        "glu-nano-s0",
    ]
    assert len(cells("mine", *options, "--seeds", "3")) == 12
    study = parse(["plan", "mine", *options, "--set", "pretrain.steps=7"]).load()
    assert (study.name, study.corpus, study.platform) == ("mine", "corpora/python", "cpu")
    assert study.tuning and all(cell.study == "mine" for cell in study.cells)
    assert {cell.pretrain.steps for cell in study.cells} == {7}
    text = parse(["plan", "mine", *options[2:], "--preset", "cpu_text"]).load()
    assert {cell.family for cell in text.cells} == {"decoder_only"} and not text.tuning


def test_a_declared_study_can_be_cut_and_repeated():
    assert cells("cpu", "--architectures", "glu,mos", "--sizes", "nano,micro") == [
        "glu-micro-s0",
        "mos-micro-s0",
        "glu-nano-s0",
        "mos-nano-s0",
    ]
    assert cells("cpu", "--seeds", "2")[48:] == [
        name.replace("-s0", "-s1") for name in cells("cpu")
    ]
    assert cells("probes", "--seeds", "1") == [
        cell.run_id for cell in load("probes").cells if cell.seed == 0
    ]
    assert cells("cpu") == [cell.run_id for cell in load("cpu").cells]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cpu", "--architectures", "gpt2"], "study 'cpu' has no 'gpt2', only transformer, albert"),
        (["cpu", "--sizes", "xl"], "sizes: study 'cpu' has no 'xl'"),
        (["mine", "--preset", "cpu", "--sizes", "nano"], "preset = 'cpu': needs --architectures"),
        (["cpu", "--preset", "cpu", "--architectures", "glu", "--sizes", "nano"], "needs a name"),
        (["..", "--preset", "cpu", "--architectures", "glu", "--sizes", "nano"], "needs a name"),
        (["x", "--preset", "y", "--architectures", "glu", "--sizes", "nano"], "is not one of cpu"),
        (["x", "--preset", "cpu", "--architectures", "glu", "--sizes", "nan"], "size 'nan' is unk"),
        (["x", "--preset", "cpu", "--architectures", "gl", "--sizes", "nano"], "architecture 'gl'"),
        (["cpu", "--seeds", "-1"], "seeds = -1"),
    ],
)
def test_what_cannot_be_declared_is_refused(capsys, arguments, said):
    assert main(["plan", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_preset_and_a_file_exclude_each_other(tmp_path):
    verb = parse(
        ["plan", "x", "--preset", "cpu", "--architectures", "glu", "--sizes", "nano"]
        + ["--config", str(tmp_path / "study.py")]
    )
    with pytest.raises(InputError, match="preset and config exclude each other"):
        verb.load()


def test_such_a_study_needs_its_options_again(tmp_path, capsys):
    options = ["mine", "--preset", "cpu", "--architectures", "glu", "--sizes", "nano"]
    study = parse(["plan", *options]).load()
    write_manifest(study, tmp_path / "mine")
    assert main(["plan", "mine", "--seeds", "2", "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "mine was not declared in configs/studies: give the options of the command" in said
