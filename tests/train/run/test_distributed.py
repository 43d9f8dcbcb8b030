"""Start-up without arguments, and two processes that train as one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.train.tiny_corpus import write_corpus
from train import records
from train.records import InputError
from train.run import distributed
from train.run.cell import EXIT_PREEMPTED

PLAIN = {"COORDINATOR_ADDRESS": "host:1234", "NUM_PROCESSES": "4", "PROCESS_ID": "2"}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "3",
}
FOUND = {
    "coordinator_address": "host:1234",
    "num_processes": 4,
    "process_id": 2,
    "cluster_detection_method": "deactivate",
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (PLAIN, FOUND),
        ({f"JAX_{name}": value for name, value in PLAIN.items()}, FOUND),
        ({**PLAIN, "PROCESS_ID": "", "JOB_COMPLETION_INDEX": "2"}, FOUND),
        ({**SLURM, **PLAIN}, FOUND),  # what a person sets takes precedence over what is found
        ({"COORDINATOR_ADDRESS": "host:1234", "NUM_PROCESSES": "1"}, None),
        (SLURM, {}),
        ({**SLURM, "SLURM_NTASKS": "1"}, None),
        ({**SLURM, "NUM_PROCESSES": "1"}, None),  # a separate task: the search is switched off
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, None),  # the batch script itself, outside srun
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://h:1", "OMPI_COMM_WORLD_SIZE": "2"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, {}),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, {}),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, {}),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # a pod that belongs to no job
    ],
)
def test_what_an_environment_says(environment, expected):
    assert distributed.detect(environment) == expected


def test_a_tpu_machine_of_no_known_pod_asks_its_metadata():
    assert distributed.detect({}, on_tpu=True) == {}


@pytest.mark.parametrize("missing", ["NUM_PROCESSES", "PROCESS_ID"])
def test_half_an_environment_is_an_error_that_names_the_rest(missing):
    with pytest.raises(InputError, match=f"{missing} = '' must be a number"):
        distributed.detect({name: value for name, value in PLAIN.items() if name != missing})


STEPS, DEVICES = 120, 4
_SETTINGS = {
    "model": {
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "every": 1,
        "num_experts": 4,
        "jitter": 0.0,
    }
    | {"group_size": 24, "train_capacity_factor": 0.6},
    "pretrain.steps": STEPS,
    "pretrain.batch_size": 8,
    "pretrain.input_length": 24,
    "pretrain.target_length": 12,
    "pretrain.optimizer": {"learning_rate": 0.1, "warmup_steps": 4, "min_factored_size": 16},
    "pretrain.eval_batches": 1,
    "pretrain.eval_batch_size": 8,
    "pretrain.log_every": 1,
    "finetune": None,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def _start(corpus, runs, steps=STEPS, processes=1):
    """The command line `pretrain` in one or more processes, which share four devices."""
    settings = [
        f"{key}={json.dumps(value)}"
        for key, value in {**_SETTINGS, "pretrain.steps": steps}.items()
    ]
    command = [
        sys.executable,
        "-m",
        "train",
        "pretrain",
        "--architecture",
        "switch",
        "--corpus",
        str(corpus),
    ]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started = []
    for number in range(processes):
        environment = os.environ | {
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} "
            f"--xla_force_host_platform_device_count={DEVICES // processes}",
            "COORDINATOR_ADDRESS": address,
            "NUM_PROCESSES": str(processes),
            "PROCESS_ID": str(number),
        }
        arguments = [*command, "--runs", str(runs), "--set", *settings]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(arguments, env=environment, **pipes))
    return started


def _finish(started):
    """Exit codes, and the output of each process."""
    said = [process.communicate(timeout=400) for process in started]
    return [process.returncode for process in started], said


def _metrics(directory):
    return records.read_jsonl(directory / "metrics.jsonl")


@pytest.mark.slow
def test_two_processes_are_one_stop_together_and_continue_as_one(corpus, tmp_path):
    codes, said = _finish(_start(corpus, tmp_path / "one", steps=20))
    assert codes == [0], said

    directory = tmp_path / "two" / "single" / "switch-nano-s0"
    pair = _start(corpus, tmp_path / "two", processes=2)
    while not (directory / "metrics.jsonl").exists() or len(_metrics(directory)) < 20:
        assert all(process.poll() is None for process in pair), _finish(pair)
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGTERM)  # one process hears of it; both must stop, at the same step
    codes, said = _finish(pair)
    assert codes == [EXIT_PREEMPTED, EXIT_PREEMPTED], said
    assert "stopped and saved" in said[0][1]
    lines = [line for text in said[1] for line in text.splitlines()]
    # Gloo prints the number of its peers in several writes, which two threads may mix.
    assert not [line for line in lines if line[:6] != "[Gloo]" and "peer ranks" not in line], (
        "only process 0 speaks"
    )

    metrics = _metrics(directory)
    one = _metrics(tmp_path / "one" / "single" / "switch-nano-s0")
    compared = ("loss", "gradient_norm", "expert_drop_rate", "target_tokens")
    for key in compared:
        np.testing.assert_allclose(
            [row[key] for row in metrics[:4]], [row[key] for row in one[:4]], rtol=1e-4
        )
    assert metrics[0]["expert_drop_rate"] > 0.05
    status = records.read_json(directory / "status.json")
    step = metrics[-1]["step"]
    assert (status["state"], status["error"]) == (
        "preempted",
        f"pretrain at step {step} of {STEPS}",
    )
    assert (directory / "checkpoints" / "pretrain" / str(step)).is_dir()
    assert records.read_json(directory / "env.json")["processes"] == 2

    codes, said = _finish(_start(corpus, tmp_path / "two"))
    assert codes == [0], said
    continued = _metrics(directory)
    assert continued[:step] == metrics
    assert [row["step"] for row in continued] == list(range(1, STEPS + 1))
    recent, later = (
        np.mean([row["loss"] for row in rows])
        for rows in (metrics[-5:], continued[step : step + 5])
    )
    assert abs(later - recent) < 0.3, "it goes on from where it was"
