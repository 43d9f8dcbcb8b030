"""Configurations: written and read back, refused in one line, compared in readable words."""

import dataclasses
import json

import pytest

from train.records import InputError
from train.study.config import (
    OptimizerConfig,
    RunConfig,
    StageConfig,
    StudyConfig,
    differences,
    digest,
    from_dict,
    identity,
    recorded_identity,
    to_dict,
)

STUDY = StudyConfig(
    "s", (RunConfig(model={"num_experts": 4}), RunConfig(seed=1, finetune=None, protocol="depth"))
)


def test_a_study_is_read_back_as_it_was_written():
    assert from_dict(StudyConfig, to_dict(STUDY)) == STUDY


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sizes": 1}, "RunConfig: unknown key 'sizes'; known: architecture, size"),
        ({"pretrain": {"optimizer": {"lr": 1}}}, "RunConfig.pretrain.optimizer: unknown key 'lr'"),
        (
            {"pretrain": {"steps": "many"}},
            "RunConfig.pretrain.steps = 'many' must be a whole number",
        ),
        ({"pretrain": {"steps": 0}}, "RunConfig.pretrain.steps = 0 must be at least 1"),
        ({"pretrain": {"tasks": "glue"}}, "RunConfig.pretrain.tasks = 'glue': expected a list"),
        ({"parallel": "tpu"}, "RunConfig.parallel = 'tpu' is not one of pmap, mesh"),
        (
            {"pretrain": {"optimizer": {"name": "sgd"}}},
            "optimizer.name = 'sgd' is not one of adafactor, adamw",
        ),
        (
            {"pretrain": {"batch_size": 10, "accumulate": 3}},
            "accumulate = 3 does not divide batch_size = 10",
        ),
        ({"finetune": {"scoring": "guess"}}, "scoring = 'guess' is not one of decode, rank, both"),
        (
            {"pretrain": {"objective": "mlm"}},
            "objective = 'mlm' is not one of span_corruption, prefix_lm, causal_lm",
        ),
        (
            {"pretrain": {"noise_density": 1.0}},
            "RunConfig.pretrain.noise_density = 1.0 must be above 0 and below 1",
        ),
        ({"finetune": {"cap": -1}}, "RunConfig.finetune.cap = -1 must be at least 0"),
        ({"mesh": [2, 0, 1]}, "mesh = [2, 0, 1] is not [data, model, expert]"),
        (
            {"pretrain": {"keep_every": 2500}},
            "keep_every = 2500 is no multiple of checkpoint_every = 1000",
        ),
        ({"pretrain": 3}, "RunConfig.pretrain = 3: expected keys and values"),
        (
            {"pretrain": {"sources": None}},
            "RunConfig.pretrain.sources = None: expected keys and values",
        ),
        ({"pretrain": {"measures": None}}, "RunConfig.pretrain.measures = None: expected a list"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(values, message):
    with pytest.raises(InputError) as error:
        from_dict(RunConfig, values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cell_declared_twice_is_refused():
    with pytest.raises(InputError, match="'transformer-base-s0' is declared 2 times"):
        StudyConfig("s", (RunConfig(), RunConfig()))


@pytest.mark.parametrize(
    "changes", [{}, {"decayed": ("matrix",)}, {"rates": {"embedding": 2}}, {"decay_steps": 5}]
)
def test_a_record_has_the_identity_of_its_run(changes):
    """JSON reads tuples as lists; records without a later field stand for its default."""
    run = RunConfig()
    optimizer = dataclasses.replace(run.pretrain.optimizer, **changes)
    run = dataclasses.replace(run, pretrain=dataclasses.replace(run.pretrain, optimizer=optimizer))
    record = json.loads(json.dumps(to_dict(run)))
    assert recorded_identity(run, record) == json.loads(json.dumps(identity(run)))
    if not changes:
        for field in ("decayed", "rates", "decay_steps", "decay_shape"):
            del record["pretrain"]["optimizer"][field]
        assert recorded_identity(run, record) == identity(run)


def test_the_identity_of_a_run_is_what_it_trains_and_not_how_often_it_logs():
    run = RunConfig()
    seldom = dataclasses.replace(
        run, pretrain=dataclasses.replace(run.pretrain, log_every=7, checkpoint_every=9)
    )
    longer = dataclasses.replace(run, pretrain=dataclasses.replace(run.pretrain, steps=7))
    assert digest(identity(seldom)) == digest(identity(run))
    assert digest(identity(longer)) != digest(identity(run))


def test_how_often_a_run_is_evaluated_matters_where_that_ends_it():
    def of(patience, every):
        return digest(identity(StageConfig(patience=patience, eval_every=every)))

    assert of(0, 10) == of(0, 20)
    assert of(3, 10) != of(3, 20)


def test_differences_name_keys_and_both_values():
    old = to_dict(StageConfig())
    new = to_dict(StageConfig(steps=5, optimizer=OptimizerConfig(schedule="cosine")))
    assert differences(old, new) == [
        'optimizer.schedule: "inverse_sqrt" -> "cosine"',
        "steps: 524288 -> 5",
    ]
