"""The verbs that say what exists: settings, tasks, sizes and options."""

import dataclasses
import json

import pytest

import arch_zoo.__main__ as zoo
import train.__main__ as training
from arch_zoo import sizes
from configs import presets
from train.study import declare
from train.study.config import OptimizerConfig, StageConfig
from train.tasks.metrics import METRICS


def printed(capsys, main, *arguments):
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def refused(capsys, main, *arguments):
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def listed(capsys, *arguments):
    rows = json.loads(printed(capsys, training.main, "settings", "--format", "json", *arguments))
    return {row["key"]: row for row in rows}


@pytest.mark.parametrize("architecture", ["switch", "llama"])
def test_every_setting_is_listed_explained_and_can_be_set(capsys, architecture):
    found = listed(capsys, "--architecture", architecture)
    for kind, prefix in ((StageConfig, "pretrain."), (OptimizerConfig, "finetune.optimizer.")):
        for field in dataclasses.fields(kind):
            nested = f"{prefix}{field.name}" == "pretrain.optimizer"
            assert nested or f"{prefix}{field.name}" in found
    options = {"switch": "model.num_experts", "llama": "model.theta"}
    assert options[architecture] in found and "model.embed_dim" in found
    assert all(row["meaning"] for row in found.values())
    cell = presets.cpu(architecture, "nano")
    for key, row in found.items():
        (key, value), *_ = training.verbs.parse_settings([f"{key}={row['value']}"]).items()
        changed = declare.with_settings(cell, {key: value})
        if not key.startswith("model."):
            assert changed == cell, key  # it is the preset's own value
    assert "vocab_size" not in str(list(found))


def test_settings_are_found_by_their_meaning(capsys):
    shown = printed(capsys, training.main, "settings", "rolled back")
    assert shown.startswith("pretrain.max_rollbacks=3\n    how often")
    assert "finetune.max_rollbacks=3" in shown
    choices = listed(capsys, "schedule")["pretrain.optimizer.schedule"]["choices"]
    assert choices == ["inverse_sqrt", "constant", "cosine", "linear"]
    assert "no setting has it" in refused(capsys, training.main, "settings", "zebra")
    assert "preset = 'x' is not one of cpu" in refused(
        capsys, training.main, "settings", "--preset", "x"
    )


def test_sizes_and_operators_are_listed(capsys):
    found = json.loads(printed(capsys, zoo.main, "sizes", "--format", "json"))
    assert set(found["sizes"]) == set(sizes.SIZES) and found["sizes"]["base"]["mlp_dim"] == 3072
    assert set(found["operators"]) == set(sizes.OPERATORS)
    shown = printed(capsys, zoo.main, "sizes")
    assert "small           6+6   512   2048" in shown and "\n  NL  layers of" in shown


def test_show_takes_options(capsys):
    arguments = ("show", "switch", "--size", "nano", "--format", "json")
    few, many = (
        json.loads(printed(capsys, zoo.main, *arguments, "--set", f"num_experts={number}"))
        for number in (2, 4)
    )
    assert few["config"]["options"]["num_experts"] == 2
    assert few["parameters"]["total"] < many["parameters"]["total"]
    assert few["parameters"]["active"] == pytest.approx(many["parameters"]["active"], rel=0.01)
    for setting, said in (
        ("num_expert=2", "num_expert"),
        ("num_experts", "is not KEY=VALUE"),
        ("vocab_size=3", "vocab_size has an option of its own"),
    ):
        assert said in refused(capsys, zoo.main, *arguments, "--set", setting)


@pytest.mark.slow  # loads TensorFlow
def test_tasks_and_metrics_are_listed(capsys):
    found = json.loads(printed(capsys, training.main, "tasks", "--format", "json"))
    named = {task["name"]: task for task in found["tasks"]}
    assert len(named) == 23 and named["glue_mnli"]["metrics"] == ["mnli"]
    assert [name for name, task in named.items() if not task["scored"]] == ["dpr"]
    assert {metric["name"] for metric in found["metrics"]} == set(METRICS)
    assert "glue_cola             matthews" in printed(capsys, training.main, "tasks")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.num_expert=4", "num_expert"),
        ("model.short_conv=Z", "short_conv='Z'"),
        ("pretrain.steps=1.5", "pretrain.steps = 1.5 must be a whole number"),
    ],
)
def test_a_wrong_option_is_told_before_a_corpus_is_looked_for(capsys, tmp_path, setting, said):
    line = refused(
        capsys, training.main, "pretrain", "--corpus", str(tmp_path / "none"), "--set", setting
    )
    assert said in line and "corpus" not in line


def test_a_whole_number_may_have_an_exponent():
    cell = declare.with_settings(
        presets.cpu("transformer", "nano"),
        training.verbs.parse_settings(["pretrain.steps=1e3", "pretrain.eval_every=2.0"]),
    )
    assert (cell.pretrain.steps, cell.pretrain.eval_every) == (1000, 2)
    assert type(cell.pretrain.steps) is int
