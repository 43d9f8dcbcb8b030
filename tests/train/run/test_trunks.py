"""Runs that share a trunk give the numbers that they give alone, and cost only their decay."""

import dataclasses
import shutil

import numpy as np
import pytest

from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.__main__ import main
from train.data.corpus import open_corpus
from train.launch.worker import Worker
from train.plan import devices, plan
from train.records import InputError
from train.run import cell, loop
from train.run.checkpoint import Checkpoints
from train.run.start import Start, checkpoints_of
from train.run.step import init_state, make_model
from train.study import declare
from train.study.config import OptimizerConfig, StudyConfig
from train.study.trunks import trunk_of

STAGE = dataclasses.replace(
    tiny_study.STAGE,
    optimizer=OptimizerConfig(learning_rate=0.03, warmup_steps=2, min_factored_size=16),
    checkpoint_every=5, eval_every=5, log_every=1,
)  # fmt: skip
PLAIN = dataclasses.replace(tiny_study.run("transformer"), pretrain=STAGE, finetune=None)
LONG, SHORT = declare.branches((PLAIN,), (4, 12), decay=0.25)


def changed(config, **settings):
    return declare.with_settings(config, {f"pretrain.{k}": v for k, v in settings.items()})


def test_branches_are_constant_until_their_decay_and_the_longest_is_the_trunk():
    assert [(c.pretrain.steps, c.pretrain.decay_starts) for c in (LONG, SHORT)] == [
        (16, 12),
        (5, 4),
    ]
    assert [c.run_id for c in (LONG, SHORT)] == [
        "transformer-nano-steps16-s0",
        "transformer-nano-steps5-s0",
    ]
    assert {c.pretrain.optimizer.schedule for c in (LONG, SHORT)} == {"constant"}
    assert (LONG.pretrain.keep_at, SHORT.pretrain.keep_at) == ((12, 4), (4,))
    cells = (LONG, SHORT)
    assert trunk_of(SHORT, cells) == LONG and trunk_of(LONG, cells) is None
    for key, value in {
        "z_loss": 1e-3,
        "optimizer.learning_rate": 0.1,
        "optimizer.decay_steps": 0,
        "optimizer.warmup_steps": 1,
        "batch_size": 4,
    }.items():
        assert trunk_of(changed(SHORT, **{key: value}), cells) is None, key
    assert trunk_of(dataclasses.replace(SHORT, seed=1), cells) is None
    assert trunk_of(changed(SHORT, **{"optimizer.decay_shape": "sqrt"}), cells) == LONG
    assert trunk_of(changed(SHORT, steps=4), cells) is None  # leaves at step 3, which is not kept
    for steps, decay in (((), 0.2), ((0, 4), 0.2), ((4,), 1.0)):
        with pytest.raises(InputError):
            declare.branches((PLAIN,), steps, decay)


def test_equal_cells_do_not_wait_for_each_other():
    linear, root = SHORT, changed(SHORT, **{"optimizer.decay_shape": "sqrt"})
    root = dataclasses.replace(root, protocol="root")
    pair = (linear, root)
    assert [trunk_of(one, pair) for one in pair].count(None) == 1


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """The short run, trained by itself."""
    directory = tmp_path_factory.mktemp("alone")
    cell.run_cell(SHORT, corpus, directory, quiet=True)
    return directory


@pytest.fixture(scope="module")
def shared(corpus, tmp_path_factory):
    """Both runs of a study, trained by a worker."""
    directory = tmp_path_factory.mktemp("shared")
    programs = ((LONG,), (SHORT,))
    worker = Worker(programs, directory, corpus, "launch", 0, lambda: False)
    assert worker.run() == 0
    return directory


def result(corpus, directory, config=SHORT):
    """Parameters, optimizer state and records without the clock."""
    model, params = make_model(cell.model_config(config, corpus), 0)
    from train.run.optimizers import make_optimizer
    from train.run.parallel import make_strategy
    from train.run.start import items_of

    state = init_state(params, make_optimizer(config.pretrain.optimizer, model.axes))
    strategy = make_strategy(config, model.axes, params)
    with Checkpoints(checkpoints_of(directory, "pretrain"), read_only=True) as checkpoints:
        restored = checkpoints.restore(items_of(strategy.abstract(state)))
        assert restored is not None
    items, meta = restored
    rows = {
        name: records.without_clock(records.read_jsonl(directory / name))
        for name in ("metrics.jsonl", "evals.jsonl")
    }
    return items, meta, rows


def assert_equal(one, other):
    import jax

    for a, b in zip(jax.tree.leaves(one[0]), jax.tree.leaves(other[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one[2] == other[2]
    assert one[1]["hash"] == other[1]["hash"] and one[1]["step"] == other[1]["step"]


@pytest.mark.slow
def test_a_branch_equals_the_run_that_was_trained_alone(corpus, alone, shared):
    branch = shared / SHORT.run_id
    assert_equal(result(corpus, branch), result(corpus, alone))
    (event,) = records.read_jsonl(branch / "events.jsonl")
    assert (event["event"], event["step"]) == ("resumed", 4)
    assert [row["step"] for row in records.read_jsonl(branch / "metrics.jsonl")] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_branch_that_is_killed_at_its_start_or_later_goes_on(corpus, alone, shared, tmp_path):
    shutil.copytree(shared / LONG.run_id, tmp_path / LONG.run_id)
    own = tmp_path / SHORT.run_id
    worker = Worker(((LONG,), (SHORT,)), tmp_path, corpus, "launch", 0, lambda: False)
    start = worker._branch(SHORT)
    assert start is not None and start.resume_at == 4
    with pytest.MonkeyPatch.context() as patch:  # killed after the records, before a checkpoint
        patch.setattr(loop, "run_steps", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cell.run_cell(SHORT, corpus, own, start_from=start, quiet=True)
    assert records.read_jsonl(own / "metrics.jsonl")
    assert worker.run() == 0
    assert_equal(result(corpus, own), result(corpus, alone))


@pytest.mark.slow
def test_a_branch_waits_for_its_trunk_only_while_somebody_trains_it(corpus, tmp_path):
    worker = Worker(((LONG,), (SHORT,)), tmp_path, corpus, "launch", 0, lambda: False)
    assert worker._branch(SHORT) is None and not worker._waits(SHORT)
    with records.lock(tmp_path / LONG.run_id):
        assert worker._waits(SHORT) and worker._look_at(SHORT) == "locked"
    alone = Worker(((SHORT,),), tmp_path, corpus, "launch", 0, lambda: False)
    assert alone._trunk(SHORT) is None


@pytest.mark.slow
def test_a_checkpoint_is_left_only_before_either_rate_falls(corpus, shared, tmp_path, capsys):
    trunk = checkpoints_of(shared / LONG.run_id, "pretrain")
    late = changed(LONG, steps=20, **{"optimizer.decay_steps": 7})

    def go(config, name, at):
        start = Start(resume_from=trunk, resume_at=at)
        return cell.run_cell(config, corpus, tmp_path / name, start_from=start, quiet=True)

    with pytest.raises(InputError, match="other settings: pretrain.optimizer.decay_steps: 4 -> 7"):
        go(late, "late", 16)  # the trunk's rate has fallen there
    with pytest.raises(InputError, match="holds no checkpoint of step 3"):
        go(late, "missing", 3)
    assert go(late, "in time", 12) == "done"
    command = ["pretrain", "--corpus", str(corpus.path), "--runs", str(tmp_path)]
    assert main([*command, "--resume-from", str(trunk), "--resume-at", "5"]) == 2
    assert "step 5" in capsys.readouterr().err


def test_a_plan_counts_the_steps_of_a_trunk_once():
    cells = (LONG, SHORT)
    study = StudyConfig("tiny", cells, platform="cpu")
    machines = plan.Machines(devices.get("cpu"))
    together, apart = (
        plan.make(dataclasses.replace(study, cells=some), 64, machines, 1)
        for some in (cells, (SHORT,))
    )
    long, short = together.cells
    (whole,) = apart.cells
    per_step = whole.seconds - devices.get("cpu").setup
    assert short.seconds == pytest.approx(whole.seconds - per_step * 4 / 5)
    assert long.seconds > whole.seconds
