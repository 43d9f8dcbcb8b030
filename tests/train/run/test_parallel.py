"""Every strategy gives the losses of one device, on any number of devices."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import arch_zoo
from tests import tolerances
from tests.train.tiny_corpus import write_corpus
from train.run.optimizers import make_optimizer
from train.run.step import init_state, make_model, make_train_step
from train.study.config import OptimizerConfig, StageConfig

MATRIX = Path(__file__).parents[3] / "benchmarks" / "parallel_matrix.py"

_RUN = """if True:
    import dataclasses, json, sys
    from pathlib import Path
    from tests.train import tiny_study
    from train.data.corpus import open_corpus
    from train.run import cell
    corpus, directory, parallel, mesh = sys.argv[1:]
    stage = dataclasses.replace(tiny_study.STAGE, log_every=1, eval_every=0)
    config = dataclasses.replace(
        tiny_study.run("transformer"),
        pretrain=stage,
        finetune=None,
        parallel=parallel,
        mesh=tuple(json.loads(mesh)),
    )
    cell.run_cell(config, open_corpus(corpus), Path(directory), quiet=True)
"""


def _environment(devices):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "XLA_FLAGS": flags}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "family", "settings", "options"),
    [
        ("switch", "encoder_decoder", "pmap-4,spread-4,mesh-2x2x1,mesh-2x1x2", {}),
        ("moe", "decoder_only", "pmap-4,mesh-2x2x1", {}),
        ("moe", "decoder_only", "spread-4", {"train_capacity_factor": None}),
        ("moe", "decoder_only", "pmap-4,mesh-2x1x2", {"balance_bias": True}),
    ],
)
def test_every_strategy_trains_to_the_losses_of_one_device(architecture, family, settings, options):
    """Some pairs of the matrix that `benchmarks/parallel_matrix.py` computes completely."""
    arguments = ["--architectures", architecture, "--settings", settings, "--steps", "3"]
    arguments += ["--family", family, "--options", json.dumps(options)]
    done = subprocess.run(
        [sys.executable, str(MATRIX), *arguments],
        env=_environment(8),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    tally = json.loads(done.stdout)
    assert tally["equal"] == tally["of"] == settings.count(",") + 1
    (row,) = tally["differences"]
    assert row.pop("architecture") == architecture
    assert max(row.values()) < tolerances.REORDERED_GRADIENT
    assert "of the tokens dropped" in done.stderr
    dropless = options.get("train_capacity_factor", 1.0) is None
    assert (" 0% of the tokens dropped" in done.stderr) == dropless


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["muon", "lion"])
def test_other_optimizers_train_alike_where_matrices_are_cut(optimizer):
    arguments = ["--architectures", "switch", "--settings", "mesh-2x2x1,spread-4", "--steps", "2"]
    done = subprocess.run(
        [sys.executable, str(MATRIX), *arguments, "--optimizer", optimizer],
        env=_environment(8),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["equal"] == 2


@pytest.mark.slow
def test_micro_batches_do_not_change_a_step():
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 32, (8, 6)).astype(np.int32)
    batch = {
        name: ids
        for name in ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    }
    batch["decoder_loss_weights"] = (rng.random((8, 6)) < 0.7).astype(np.float32)
    cfg = arch_zoo.config("transformer", "nano-NL1", vocab_size=32)
    whole = StageConfig(batch_size=8, optimizer=OptimizerConfig(learning_rate=0.1))
    stepped = []
    for stage in (whole, dataclasses.replace(whole, accumulate=4)):
        model, params = make_model(cfg, 0)
        optimizer = make_optimizer(stage.optimizer, model.axes)
        step = make_train_step(model, optimizer, stage)
        stepped.append(jax.jit(step)(init_state(params, optimizer), batch, 0.1, 0))
    (one, metrics), (other, expected) = stepped
    for name in metrics:
        np.testing.assert_allclose(
            metrics[name], expected[name], rtol=tolerances.REORDERED_GRADIENT, err_msg=name
        )
    for name in one.params:
        np.testing.assert_allclose(
            one.params[name], other.params[name], atol=tolerances.REORDERED, err_msg=name
        )


_ROWS = """if True:
    import jax, numpy as np
    import arch_zoo
    from train.run.optimizers import make_optimizer
    from train.run.parallel import make_strategy
    from train.run.step import init_state, make_model, make_train_step
    from train.study.config import OptimizerConfig, RunConfig, StageConfig
    stage = StageConfig(batch_size=8, accumulate=2, optimizer=OptimizerConfig(learning_rate=0.1))
    model, params = make_model(arch_zoo.config("transformer", "nano-NL1", vocab_size=32), 0)
    optimizer = make_optimizer(stage.optimizer, model.axes)
    config = RunConfig(parallel="mesh", mesh=(4, 1, 1), pretrain=stage, finetune=None)
    strategy = make_strategy(config, model.axes, params)
    ids = np.ones((8, 6), np.int32)
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    batch = {name: ids for name in names}
    batch["decoder_loss_weights"] = np.ones((8, 6), np.float32)
    step = strategy.compile(make_train_step(model, optimizer, stage, strategy.devices))
    state = strategy.place_state(init_state(params, optimizer))
    lowered = step.lower(state, strategy.place_batch(batch), np.float32(0.1), np.uint32(0))
    program = lowered.compile().as_text()
    # A device has one of the four rows of a micro-batch, so its logits are [1, 6, 32] or the like.
    whole = "[4,6,32]" in program or "[24,32]" in program
    assert not whole, "every device has whole micro-batches"
    assert "[6,32]" in program or "[1,6,32]" in program
"""


@pytest.mark.slow
def test_the_rows_of_micro_batches_are_cut_over_the_mesh():
    subprocess.run([sys.executable, "-c", _ROWS], env=_environment(4), check=True, timeout=500)


@pytest.mark.slow
def test_a_run_continues_on_another_number_of_devices(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")

    def train(devices, *arguments):
        command = [sys.executable, "-c", _RUN, str(corpus), str(tmp_path / "run"), *arguments]
        subprocess.run(command, env=_environment(devices), check=True, timeout=500)
        rows = (
            json.loads(line)
            for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        )
        return np.array([[row["loss"], row["gradient_norm"], row["target_tokens"]] for row in rows])

    losses = train(4, "pmap", "[-1, 1, 1]")
    (tmp_path / "run" / "checkpoints" / "pretrain" / "12").rename(
        tmp_path / "12"
    )  # as if the run was killed before the last one
    status = tmp_path / "run" / "status.json"
    status.write_text(
        json.dumps({**json.loads(status.read_text()), "state": "running", "finished": []})
    )
    continued = train(2, "mesh", "[1, 2, 1]")
    np.testing.assert_array_equal(continued[:8], losses[:8])
    np.testing.assert_allclose(continued, losses, rtol=1e-3)
