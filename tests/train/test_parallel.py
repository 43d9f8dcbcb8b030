"""Any strategy on any number of devices trains to the losses of one device."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.train.tiny_corpus import write_corpus

_RUN = """if True:
    import dataclasses, json, sys
    from pathlib import Path
    from tests.train import tiny_study
    from train import cell
    from train.data.corpus import open_corpus
    corpus, directory, parallel, mesh, accumulate = sys.argv[1:]
    stage = dataclasses.replace(tiny_study.STAGE, accumulate=int(accumulate), log_every=1, eval_every=0)
    config = dataclasses.replace(
        tiny_study.run("transformer"), pretrain=stage, finetune=None, parallel=parallel, mesh=tuple(json.loads(mesh))
    )
    cell.run_cell(config, open_corpus(corpus), Path(directory), quiet=True)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def _train(corpus, directory, devices, parallel="pmap", mesh="[-1, 1, 1]", accumulate=1):
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    arguments = [str(corpus), str(directory), parallel, mesh, str(accumulate)]
    subprocess.run([sys.executable, "-c", _RUN, *arguments], env=environment, check=True, timeout=500)
    return _losses(directory)


def _losses(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return np.array([[row["loss"], row["gradient_norm"], row["target_tokens"]] for row in rows])


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    return _train(corpus, tmp_path_factory.mktemp("one"), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "parallel", "mesh", "accumulate"),
    [
        (1, "pmap", "[-1, 1, 1]", 4),
        (4, "pmap", "[-1, 1, 1]", 1),
        (4, "mesh", "[2, 2, 1]", 1),
        (4, "mesh", "[1, 2, 2]", 2),
    ],
)
def test_devices_and_micro_batches_do_not_change_the_losses(
    alone, corpus, tmp_path, devices, parallel, mesh, accumulate
):
    losses = _train(corpus, tmp_path, devices, parallel, mesh, accumulate)
    # The same sums in another order: equal at first, then the rounding grows from step to step.
    np.testing.assert_allclose(losses[:4], alone[:4], rtol=1e-4)
    np.testing.assert_allclose(losses, alone, rtol=1e-2)


@pytest.mark.slow
def test_a_run_continues_on_another_number_of_devices(alone, corpus, tmp_path):
    losses = _train(corpus, tmp_path, 4)
    for step in tmp_path.glob("checkpoints/pretrain/12"):
        step.rename(tmp_path / "12")  # as if it had been killed before the last checkpoint
    status = tmp_path / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "running", "finished": []}))
    continued = _train(corpus, tmp_path, 2, "mesh", "[1, 2, 1]")
    np.testing.assert_allclose(continued, losses, rtol=1e-2)
    np.testing.assert_array_equal(continued[:8], losses[:8])
