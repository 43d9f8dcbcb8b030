"""Decoder-only models in the trainer: objectives, both stages, resuming, and older records."""

import dataclasses
import json
import math

import numpy as np
import pytest

from arch_zoo import ConfigError
from configs import presets
from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.data.corpus import open_corpus
from train.records import InputError
from train.run import cell, loop, seeds
from train.study import declare
from train.study.config import RunConfig, StudyConfig
from train.study.directory import write_manifest

STAGE = dataclasses.replace(tiny_study.STAGE, eval_every=0)


def language_model(architecture: str = "llama", **changes) -> RunConfig:
    run = RunConfig(
        architecture,
        "nano",
        family="decoder_only",
        model={"num_decoder_layers": 1},
        pretrain=STAGE,
        finetune=None,
    )
    return dataclasses.replace(run, **changes)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "targets"),
    [
        ({"objective": "span_corruption"}, None),
        ({"objective": "prefix_lm"}, 8 * 12),
        ({"objective": "causal_lm"}, 8 * 12),
        ({"objective": "causal_lm", "by_document": True}, 8 * 12),
    ],
)
def test_every_objective_trains(corpus, tmp_path, settings, targets):
    stage = dataclasses.replace(STAGE, **settings)
    config = language_model(pretrain=stage)
    assert cell.run_cell(config, corpus, tmp_path, quiet=True) == "done"
    run = records.read_run(tmp_path)
    assert run.metrics[-1]["nll"] < run.metrics[0]["nll"]
    assert targets in (None, run.metrics[0]["target_tokens"])
    length = 12 if stage.objective == "causal_lm" else 24 + 12
    assert run.metrics[-1]["tokens"] == 12 * 8 * length
    heldout = {row["metric"]: row for row in run.evals}
    assert math.isfinite(heldout["nll"]["value"]) and heldout["unigram_nll"]["value"] > 0
    assert run.config["family"] == run.config["model"]["family"] == "decoder_only"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "performer"])
def test_it_is_finetuned_and_answers(corpus, tmp_path, architecture):
    """Packed rows train it, prompts of unequal length and ranked labels test it."""
    finetune = dataclasses.replace(STAGE, pack=True, scoring="both", input_length=48)
    prefix = {"prefix": "bidirectional"}
    config = language_model(architecture, finetune=finetune)
    config = dataclasses.replace(config, model=config.model | prefix)
    assert cell.run_cell(config, corpus, tmp_path, quiet=True) == "done"
    rows = [row for row in records.read_run(tmp_path).evals if row["stage"] == "finetune"]
    found = {row["metric"]: row for row in rows}
    assert {"score", "rank_score", "majority_class", "best_score"} <= set(found)
    assert found["score"]["n"] == STAGE.eval_examples


@pytest.mark.slow
def test_a_stopped_run_continues_bit_for_bit(corpus, tmp_path):
    config = language_model()
    cell.run_cell(config, corpus, tmp_path / "whole", quiet=True)
    asked = iter([False] * 4 + [True])
    with pytest.raises(loop.Preempted):
        cell.run_cell(config, corpus, tmp_path / "two", stop=lambda: next(asked), quiet=True)
    cell.run_cell(config, corpus, tmp_path / "two", quiet=True)
    whole, two = (records.read_run(tmp_path / name) for name in ("whole", "two"))
    for one, other in ((whole.metrics, two.metrics), (whole.evals, two.evals)):
        same = [
            [{k: v for k, v in row.items() if k not in records.CLOCK} for row in rows]
            for rows in (one, other)
        ]
        assert same[0] == same[1]


@pytest.mark.slow
def test_several_seeds_train_in_one_program(corpus, tmp_path):
    runs = [language_model(seed=seed) for seed in range(2)]
    assert seeds.run_seeds(runs, corpus, tmp_path / "together", quiet=True) == ["done"] * 2
    cell.run_cell(runs[1], corpus, tmp_path / "alone", quiet=True)
    together = records.read_run(tmp_path / "together" / runs[1].run_id).metrics
    alone = records.read_run(tmp_path / "alone").metrics
    np.testing.assert_allclose(
        [row["nll"] for row in together], [row["nll"] for row in alone], rtol=2e-3
    )


@pytest.mark.slow
def test_a_run_made_before_families_continues_and_keeps_its_identity(corpus, tmp_path):
    """Its records have no field of a family, and neither has the hash of its checkpoints."""
    config = dataclasses.replace(tiny_study.run("transformer"), finetune=None)
    directory = tmp_path / config.run_id
    asked = iter([False] * 4 + [True])
    with pytest.raises(loop.Preempted):
        cell.run_cell(config, corpus, directory, stop=lambda: next(asked), quiet=True)
    path = directory / "config.json"
    written = json.loads(path.read_text())
    for values, name in (
        (written, "family"),
        (written["model"], "family"),
        (written["model"], "prefix"),
        (written["pretrain"], "by_document"),
    ):
        del values[name]
    path.write_text(json.dumps(written))
    write_manifest(StudyConfig("old", (config,)), tmp_path)  # refuses other configurations
    assert cell.run_cell(config, corpus, directory, quiet=True) == "done"
    with pytest.raises(InputError, match="by_document"):
        other = dataclasses.replace(
            config,
            family="decoder_only",
            model={"num_decoder_layers": 1},
            pretrain=dataclasses.replace(STAGE, objective="causal_lm", by_document=True),
        )
        cell.run_cell(other, corpus, directory, quiet=True)


@pytest.mark.parametrize(
    ("architecture", "at_nano", "at_base"),
    [
        ("transformer", "ae5917b0e462d3e5", "3b5a408ffc5cfe05"),
        ("mixer", "0360fca90aeb816a", "8a1147a413f36db7"),
        ("switch", "27eb38146f2e6714", "7515443a622d6f00"),
    ],
)
def test_hashes_are_those_of_release_0_2(architecture, at_nano, at_base):
    """Recorded with the code before decoder-only models: `cell_hash` of its presets."""
    settings = {"steps": 300, "optimizer.learning_rate": 0.3, "optimizer.schedule": "inverse_sqrt"}
    old = {f"pretrain.{key}": value for key, value in settings.items()}
    nano = declare.with_settings(presets.cpu(architecture, "nano"), old)
    base = presets.t5(architecture, "base")
    assert declare.cell_hash(nano, 2048) == at_nano
    assert declare.cell_hash(base, 32128, accelerator=True) == at_base


def test_the_family_is_a_part_of_the_identity_and_of_the_name():
    one, other = presets.cpu("llama", "nano"), presets.cpu("llama", "nano", family="decoder_only")
    assert declare.cell_hash(one, 2048) != declare.cell_hash(other, 2048)
    assert one.run_id == "llama-nano-s0" and other.run_id == "llama-nano-decoder_only-s0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "encoder"}, "family = 'encoder' is not one of encoder_decoder, decoder_only"),
        ({"model": {"family": "decoder_only"}}, "model.family = .*: it is the run's family"),
        ({"finetune": STAGE, "architecture": "funnel"}, "funnel: family='decoder_only'"),
    ],
)
def test_families_that_do_not_exist_are_refused(changes, message):
    with pytest.raises((InputError, ConfigError), match=message):
        declare.model(language_model(**changes), 2048)


def test_documents_are_kept_apart_only_in_text_of_a_language_model():
    stage = dataclasses.replace(STAGE, objective="causal_lm", by_document=True)
    with pytest.raises(InputError, match="pretrain.by_document = True needs family = decoder_only"):
        dataclasses.replace(tiny_study.run("transformer"), pretrain=stage)
    with pytest.raises(InputError, match="by_document = True needs objective = causal_lm"):
        dataclasses.replace(STAGE, by_document=True)


def test_twins_cost_the_same():
    (vanilla,) = declare.grid(presets.cpu, size=("micro",), architecture=("transformer",))
    (by_flops,) = declare.twins((vanilla,), "flops", vocab_size=2048)
    (by_params,) = declare.twins((vanilla,), "params", "params", 2048)
    assert by_flops.family == by_params.family == "decoder_only"
    assert by_flops.size == "micro" and by_params.size == "micro-DL5"
    assert by_params.protocol == "params"
    ratio = declare.cost(by_flops, "flops", 2048) / declare.cost(vanilla, "flops", 2048)
    assert 0.9 < ratio < 1.1
