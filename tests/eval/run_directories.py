"""Writes studies as the trainer would write them.

Run directories with simulated numbers, written by `train.records` itself.
"""

import dataclasses
import itertools
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eval.data.study import Study
from train import records

LADDER = ("nano", "micro", "milli", "tiny", "mini", "small", "base")
ZOO = (
    "albert",
    "dconv",
    "evolved",
    "funnel",
    "glu",
    "lconv",
    "mixer",
    "mos",
    "performer",
    "switch",
    "transformer",
    "universal",
)
TASKS = (
    "python_acceptability",
    "python_entailment",
    "python_match",
    "python_package",
    "python_questions",
)
PAPER_TASKS = (
    *(f"glue_{t}" for t in ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte")),
    *(f"super_glue_{t}" for t in ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")),
    "squad",
)
# What makes the bits per byte 0.4 times the nats per token, as `write_run` records them.
BYTES_PER_TOKEN = 1 / (0.4 * np.log(2))


@dataclasses.dataclass(frozen=True)
class Cell:
    """A run: what RunConfig says of it, and its place in the study, from which its numbers come.

    Attributes:
      a: the number of the architecture.
      s: the number of the size.
      family: of the model; encoder-decoders are recorded without it, as before there were two.
      gain: how much lower the loss is at the smallest size, and per decade of FLOPs from there.
    """

    architecture: str
    a: int
    size: str
    s: int
    protocol: str
    seed: int
    family: str = "encoder_decoder"
    gain: tuple[float, float] = (0.0, 0.0)

    @property
    def run_id(self) -> str:
        """The name of the run's directory."""
        family = "" if self.family == "encoder_decoder" else self.family
        parts = (self.architecture, self.size, family, self.protocol, f"s{self.seed}")
        return "-".join(filter(None, parts))

    @property
    def flops(self) -> float:
        """Of a forward pass."""
        return 1e7 * 3.5**self.s * (1 + 0.08 * self.a)


def write_study(
    root: Path,
    architectures=ZOO[:4],
    sizes=LADDER[:3],
    seeds=1,
    tasks=TASKS,
    protocols=("",),
    study="simulated",
) -> Path:
    """Writes one run directory per cell under root/study and returns that directory."""
    for a, architecture in enumerate(architectures):
        for s, size in enumerate(sizes):
            for protocol in protocols:
                for seed in range(seeds):
                    rng = np.random.default_rng([a, s, seed, len(protocol)])
                    cell = Cell(architecture, a, size, s, protocol, seed)
                    write_run(root / study, cell, tasks, rng)
    return root / study


def write_families(
    root: Path,
    gains: Mapping[str, tuple[float, float]],
    sizes=LADDER[:5],
    seeds=2,
    protocols=("", "params"),
    study="families",
) -> Path:
    """Writes encoder-decoders, and decoder-only twins of them in each of the protocols.

    Args:
      root: where the study's directory is made.
      gains: by architecture, `Cell.gain` of its decoder-only models.
      sizes: of both; a twin has another number of layers in its name.
      seeds: runs of every cell.
      protocols: of the twins.
      study: the name of the study.
    """
    for (a, (architecture, gain)), (s, size), seed in itertools.product(
        enumerate(gains.items()), enumerate(sizes), range(seeds)
    ):
        rng = np.random.default_rng([a, s, seed, 0])
        write_run(root / study, Cell(architecture, a, size, s, "", seed), TASKS, rng)
        for k, protocol in enumerate(protocols, start=1):
            rng = np.random.default_rng([a, s, seed, k])
            name = f"{size}-DL{2 + s + k}"
            twin = Cell(architecture, a, name, s, protocol, seed, "decoder_only", gain)
            write_run(root / study, twin, TASKS, rng)
    return root / study


def write_run(study: Path, cell: Cell, tasks, rng) -> Path:
    """One finished run; quality is linear in log FLOPs, with a line for each architecture."""
    path = study / cell.run_id
    path.mkdir(parents=True)
    a, flops = cell.a, cell.flops
    decades = np.log10(flops / 1e7) * {"": 1.0, "depth": 1.1, "width": 0.9}.get(cell.protocol, 1.0)
    nll = 5.0 - 0.05 * a - (0.5 - 0.03 * a) * decades + 0.03 * rng.normal()
    nll -= cell.gain[0] + cell.gain[1] * decades
    writer = records.RunWriter(path)
    writer.config(_config(cell, study.name), _env())
    for step in (50, 100):
        writer.metrics(
            {
                "step": step,
                "stage": "pretrain",
                "loss": nll + 1 / step,
                "nll": nll,
                "learning_rate": 0.01,
                "tokens": step * 4096,
                "tokens_per_second": 4e11 / flops,
                "steps_per_second": 1e8 / flops,
                "mfu": 0.1,
            }
        )
    writer.evals(_evals(nll, decades, a, tasks, rng))
    writer.status("done", stage="finetune", step=40)
    return path


def _config(cell: Cell, study: str) -> dict:
    s, flops = cell.s, cell.flops
    depth, width = {
        "": (2 + 2 * (s // 2), 32 << s),
        "depth": (2 + 2 * s, 64),
        "width": (4, 32 << s),
        "params": (2 + 2 * (s // 2), 32 << s),
    }[cell.protocol]
    alone = cell.family == "decoder_only"
    return {
        **({"family": cell.family} if alone else {}),
        "run_id": cell.run_id,
        "study": study,
        "architecture": cell.architecture,
        "size": cell.size,
        "protocol": cell.protocol,
        "seed": cell.seed,
        "hash": zlib.crc32(cell.run_id.encode()).to_bytes(4, "big").hex(),
        "model": {
            "num_encoder_layers": 0 if alone else depth,
            "num_decoder_layers": depth,
            "embed_dim": width,
        },
        "pretrain": {
            "steps": 100,
            "batch_size": 32,
            "input_length": 128,
            "optimizer": {"name": "adafactor"},
        },
        "finetune": {"steps": 40, "batch_size": 32},
        "data": {"name": "python", "fingerprint": "0123456789abcdef"},
        "accounting": {
            "params_total": flops / 50,
            "params_embedding": 1e4,
            "params_non_embedding": flops / 50 - 1e4,
            "params_active": flops / 50,
            "flops_forward": flops,
            "flops_train": 3 * flops,
            "flops_by_part": {"encoder": 0.5 * flops, "decoder": 0.4 * flops, "head": 0.1 * flops},
            "sequences_per_step": 32,
            "flops_train_total": 9600 * flops,
        },
    }


def _env() -> dict:
    return {
        "versions": {"jax": "0.10.2", "flax": "0.12.8"},
        "device": "cpu",
        "devices": 1,
        "git_commit": "f5e5079",
    }


def _evals(nll: float, decades: float, a: int, tasks, rng) -> list[dict]:
    upstream = {"step": 100, "stage": "pretrain", "task": "corpus", "split": "validation"}
    rows = [
        {**upstream, "step": 50, "metric": "nll", "value": nll + 0.5, "n": 9000, "stderr": 0.02},
        {**upstream, "metric": "nll", "value": nll, "n": 9000, "stderr": 0.02},
        {**upstream, "metric": "bits_per_byte", "value": 0.4 * nll, "n": 9000, "stderr": 0.008},
        {**upstream, "metric": "unigram_nll", "value": 6.25, "n": 9000, "stderr": None},
    ]
    for t, task in enumerate(tasks):
        chance = 30.0 + 2 * t
        score = chance + 8 * (1 + decades) + a - t + 1.5 * rng.normal()
        base = {"step": 40, "stage": "finetune", "task": task, "split": "validation", "n": 500}
        rows += [
            {**base, "metric": "accuracy", "value": score, "stderr": 2.2},
            {**base, "metric": "score", "value": score, "stderr": 2.2},
            {**base, "metric": "majority_class", "value": chance, "stderr": None},
        ]
    return rows


def write_simulated(root: Path, study: Study, target_length: int = 128) -> Path:
    """The run directories of a study from `eval.simulation.sources`."""
    for row in study.runs.to_dict("records"):
        batch = row["tokens_seen"] / row["steps"] / target_length
        path = root / study.name / row["run_id"]
        path.mkdir(parents=True)
        writer = records.RunWriter(path)
        names = ("run_id", "architecture", "family", "size", "protocol", "seed")
        accounting = {
            **{c: row[c] for c in ("params_total", "params_non_embedding", "flops_forward")},
            "flops_train_total": row["flops_train_total"],
            "sequences_per_step": batch,
            "sequences_per_epoch": row["unique_tokens"] / target_length,
            "tokens_per_epoch": row["unique_tokens"],
        }
        config = {"study": study.name, "accounting": accounting, "data": {"name": "simulated"}}
        stage = {"pretrain": {"batch_size": 16, "optimizer": {"weight_decay": 0.0}}}
        writer.config({name: row[name] for name in names} | config | stage, _env())
        of_it = study.histories[study.histories["run_id"] == row["run_id"]]
        columns = ["step", "stage", "task", "split", "metric", "value", "n", "stderr"]
        evals = of_it[columns].sort_values("step").to_dict("records")
        writer.evals([{**e, "step": int(e["step"])} for e in evals])
        step = int(row["steps"])
        writer.metrics({"step": step, "stage": "pretrain", "tokens": row["tokens_seen"]})
        writer.status("done", stage="pretrain", step=step)
    return root / study.name
