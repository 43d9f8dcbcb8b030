"""Prepares corpora, trains single runs or whole studies, and plans and watches studies.

Exit codes: 0 done; 1 a run failed; 2 bad input, explained in one line; 75 stopped by SIGTERM or
Ctrl-C with everything saved: the same command continues from there. A list option takes several
values and may be given several times.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from train import command_line
from train.command_line import EXIT_FAILED, EXIT_STOPPED
from train.data.prepare_config import PrepareConfig
from train.data.probe_verb import ProbesVerb
from train.measures import verbs as measure_verbs
from train.ranges import CountOrZero, Range, Seed
from train.records import InputError, Row, read_json, read_jsonl, read_status
from train.study import cluster_verbs, verbs
from train.study.config import Family, RunConfig, StageConfig, from_dict
from train.study.settings_verb import SettingsVerb
from train.tasks.tasks_verb import TasksVerb
from train.use import verbs as use_verbs

MOST_SEEDS = 1024  # in one program, which holds the parameters of every seed


@dataclasses.dataclass(frozen=True)
class CellVerb:
    """The options of a single run: what is trained, on which corpus, and where it is written.

    Attributes:
      architecture: a name from `python -m arch_zoo list`.
      size: a named size, optionally with scaling operators, as in base-NL24.
      family: encoder_decoder, or decoder_only for a language model.
      preset: settings of both stages: the name of a function of `configs/presets.py`.
      seed: seed of the parameters, the data order and dropout.
      seeds: number of seeds to train in one program, counting up from `seed`; each gets its own run
        directory.
      corpus: a directory that `prepare` wrote.
      runs: directory that contains all studies.
      study: name of the study, which is its directory in `runs`.
      set: further settings as KEY=VALUE, such as pretrain.steps=1000 or model.num_experts=16;
        values are JSON.
      resume_from: directory with checkpoints of the same stage, to continue from.
      resume_at: the step of the checkpoint to continue from; 0 for the newest.
      init_from: directory with checkpoints to take the initial parameters from; or that of a run,
        such as `import` makes, whose architecture, size, family and options are taken as well.
      verify: compare every file of the corpus with its checksum before training.
    """

    architecture: str = "transformer"
    size: str = "nano"
    family: Family = "encoder_decoder"
    preset: str = "cpu"
    seed: Seed = 0
    seeds: Annotated[int, Range(1, MOST_SEEDS)] = 1
    corpus: Path = Path("corpora/python")
    runs: Path = Path("runs")
    study: str = "single"
    set: tuple[str, ...] = ()
    resume_from: Path | None = None
    resume_at: CountOrZero = 0
    init_from: Path | None = None
    verify: bool = True


class PretrainVerb(CellVerb):
    """Pretrains one cell."""

    def run(self) -> int:
        """Trains and writes the run's records; returns the exit code."""
        return run_cell(self, "pretrain")


class FinetuneVerb(CellVerb):
    """Finetunes one cell on downstream tasks, by default from its own pretrained checkpoint."""

    def run(self) -> int:
        """Trains and writes the run's records; returns the exit code."""
        return run_cell(self, "finetune")


class PrepareVerb(PrepareConfig):
    """Turns text and tasks into token shards."""

    def run(self) -> int:
        """Writes the corpus; prints its path, size and fingerprint; returns the exit code."""
        from train.data import prepare

        corpus = prepare.prepare(self)
        print(
            f"{corpus.path}: {corpus.num_tokens('train')} tokens, {len(corpus.tasks)} tasks, "
            f"{corpus.fingerprint[:16]}"
        )
        return 0


VERBS = {
    "prepare": PrepareVerb,
    "pretrain": PretrainVerb,
    "finetune": FinetuneVerb,
    **verbs.VERBS,
    **cluster_verbs.VERBS,
    **measure_verbs.VERBS,
    "probes": ProbesVerb,
    "settings": SettingsVerb,
    "tasks": TasksVerb,
    **use_verbs.VERBS,
}


def main(arguments: Sequence[str]) -> int:
    """Runs one verb; returns the exit code."""
    from arch_zoo import ConfigError

    return command_line.run(lambda: parse(arguments).run(), (InputError, ConfigError))


def parse(arguments: Sequence[str]) -> Any:
    """The verb that was typed, with its options."""
    return command_line.parse(arguments, VERBS, "python -m train", __doc__)


def run_cell(verb: CellVerb, stage: str) -> int:
    """Runs `pretrain` or `finetune`, for one seed or several; returns the exit code.

    Raises:
      InputError: a setting is wrong, checkpoints are missing, or another process runs the cell.
    """
    from configs import presets
    from train.study import declare

    preset = presets.named(verb.preset)
    settings = verbs.parse_settings(verb.set)
    before = _model_of(verb)
    chosen = {key: before.get(key, getattr(verb, key)) for key in _OF_A_RUN}
    config = preset(chosen["architecture"], chosen["size"], verb.seed, chosen["family"])
    config = dataclasses.replace(config, study=verb.study)
    if stage == "finetune" and verb.init_from is None:
        config = _begun(config, verb.runs / verb.study / config.run_id)
    config = declare.with_settings(declare.like(config, before) if before else config, settings)
    # Only to refuse a wrong model before a corpus is looked for.
    declare.model(config, declare.T5_VOCABULARY)

    # Late, because these imports are slow and a misspelt setting should be reported first.
    from train.data.probe_batches import open_for
    from train.run import cell, distributed, loop, seeds, start
    from train.run.stages import KINDS

    distributed.initialize()
    corpus = open_for([config], verb.corpus, verify=verb.verify)
    if before and before["vocab_size"] != corpus.vocab_size:
        raise InputError(
            f"init_from: {verb.init_from} has {before['vocab_size']} ids, and {verb.corpus} "
            f"{corpus.vocab_size}; `import --vocab-size {corpus.vocab_size}` makes them equal"
        )
    init_from = _checkpoints(verb)
    runs = [dataclasses.replace(config, seed=verb.seed + number) for number in range(verb.seeds)]
    directories = [verb.runs / verb.study / run.run_id for run in runs]
    if len(runs) != 1 and (verb.resume_from or verb.init_from):
        raise InputError(
            f"seeds = {verb.seeds}: only one seed can start from the checkpoints of another run"
        )
    # Checked before the first step: with several seeds, the last might otherwise fail after hours.
    needed = KINDS[stage].after
    for directory in directories if needed and verb.init_from is None else []:
        if not start.checkpoints_of(directory, needed).is_dir():
            raise InputError(
                f"{directory}: has no pretrained checkpoint; pretrain it first or give --init-from"
            )
    try:
        with cell.StopOnSignal() as stop:
            if len(runs) == 1:
                start_from = start.Start(verb.resume_from, verb.resume_at, init_from=init_from)
                states = [cell.run_cell(config, corpus, directories[0], (stage,), start_from, stop)]
            else:
                states = seeds.run_seeds(runs, corpus, verb.runs / verb.study, (stage,), stop)
    except loop.Preempted as reason:
        if distributed.is_first():
            print(f"stopped and saved: {reason}; the same command continues", file=sys.stderr)
        return EXIT_STOPPED
    except loop.Diverged as error:
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    if "locked" in states:
        raise InputError(f"{directories[states.index('locked')]}: another process is running it")
    if distributed.is_first():
        for directory in directories:
            print(_result(directory, stage), file=sys.stderr)
        print(*directories, sep="\n")
    return 0


def _begun(config: RunConfig, directory: Path) -> RunConfig:
    """The configuration with the pretraining that the run in this directory has had, if any."""
    path = directory / "config.json"
    stage = read_json(path).get("pretrain") if path.exists() else None
    if not isinstance(stage, dict):
        return config
    return dataclasses.replace(config, pretrain=from_dict(StageConfig, stage, f"{path}: pretrain"))


_OF_A_RUN = ("architecture", "size", "family")


def _model_of(verb: CellVerb) -> Row:
    """The model of the run that `init_from` names; empty if it names only checkpoints.

    Raises:
      InputError: the command says that the model is another one.
    """
    if verb.init_from is None or not _is_run(verb.init_from):
        return {}
    path = verb.init_from / "config.json"
    found = read_json(path).get("model")
    if not isinstance(found, dict) or not {*_OF_A_RUN, "vocab_size"} <= set(found):
        raise InputError(f"init_from: {verb.init_from} is no run; `import` makes one of a model")
    for key in _OF_A_RUN:
        typed, usual = getattr(verb, key), getattr(CellVerb, key)
        if typed not in (usual, found[key]):
            raise InputError(f"{key} = {typed!r}: the run of init_from has {found[key]!r}")
    return found


def _is_run(directory: Path) -> bool:
    return os.path.isfile(directory / "config.json")  # Path.is_file raises if a name is too long


def _checkpoints(verb: CellVerb) -> Path | None:
    """The checkpoints that `init_from` names, of a run those of its last finished stage."""
    from train.run import start

    if verb.init_from is None or not _is_run(verb.init_from):
        return verb.init_from
    done = read_status(verb.init_from).get("finished", [])
    if not done:
        raise InputError(f"init_from: {verb.init_from} has finished no stage")
    return start.checkpoints_of(verb.init_from, done[-1])


def _result(directory: Path, stage: str) -> str:
    """The last evaluation of a stage in one line: the held-out loss, or the score of each task."""
    from train.run.evaluators import kept_by

    rows = [
        row
        for row in read_jsonl(directory / "evals.jsonl")
        if row["stage"] == stage and row["value"] is not None
    ]
    last = [row for row in rows if row["step"] == max(row["step"] for row in rows)]
    values = ", ".join(f"{name} {value:.4g}" for name, value in kept_by(last).items())
    return f"{directory.name} {stage}: {values}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
