"""`python -m train prepare|pretrain|finetune|study|status`: the trainer's command line.

Exit codes: 0 done; 1 a run failed; 2 bad input, told in one line; 75 stopped by SIGTERM or Ctrl-C with everything
saved: the same command goes on from there.
"""

import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import tyro

from train import config as configs
from train import study as studies
from train.config import RunConfig, StudyConfig
from train.data.prepare import PrepareConfig
from train.records import InputError

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_STOPPED = 1, 2, 75

_Positional = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Cell:
    """Where a single run starts from and goes to.

    Attributes:
      architecture: a name of `python -m arch_zoo list`.
      size: a named size, with scaling operators if wanted, as in base-NL24.
      preset: settings of both stages, a function of `configs/cells.py`.
      seed: of parameters, data order and dropout.
      corpus: what `prepare` wrote.
      runs: directory of studies.
      study: directory of the run's study in `runs`.
      set: further settings as KEY=VALUE, such as pretrain.steps=1000 or model.num_experts=16; values are JSON.
      resume_from: checkpoints of the same stage, in another directory, to continue.
      init_from: checkpoints to take the first parameters from.
      verify: compare every file of the corpus with its checksum before training.
    """

    architecture: str = "transformer"
    size: str = "nano"
    preset: str = "cpu"
    seed: int = 0
    corpus: Path = Path("corpora/python")
    runs: Path = Path("runs")
    study: str = "single"
    set: tuple[str, ...] = ()
    resume_from: Path | None = None
    init_from: Path | None = None
    verify: bool = True


class Pretrain(Cell):
    """Pretrains one cell."""


class Finetune(Cell):
    """Finetunes one cell on downstream tasks, from its own pretraining unless --init-from says otherwise."""


@dataclasses.dataclass(frozen=True)
class Study:
    """Runs what is left of a study on this machine: prepares its corpus, pretrains and finetunes every cell.

    Attributes:
      name: a module of `configs/studies`.
      config: a Python file with a function study(), instead of a name.
      corpus: another corpus than the study's own.
      runs: directory of studies.
      workers: processes; 0 means one a core on CPU and one on an accelerator.
      set: settings of every cell as KEY=VALUE, such as pretrain.steps=100.
    """

    name: _Positional[str] = ""
    config: Path | None = None
    corpus: Path | None = None
    runs: Path = Path("runs")
    workers: int = 0
    set: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Status:
    """Shows how far the cells of a study are, from its directory; works while it runs.

    Attributes:
      directory: of the study, for example runs/cpu.
      format: table or json.
    """

    directory: _Positional[Path]
    format: str = "table"


class Prepare(PrepareConfig):
    """Turns text and tasks into token shards."""


VERBS = {"prepare": Prepare, "pretrain": Pretrain, "finetune": Finetune, "study": Study, "status": Status}


def main(arguments: Sequence[str]) -> int:
    """Runs one verb; returns the exit code."""
    from arch_zoo import ConfigError

    try:
        verb = _parse(arguments)
        if isinstance(verb, Study):
            return run_study(verb)
        if isinstance(verb, Status):
            return show_status(verb)
        if isinstance(verb, PrepareConfig):
            return prepare_corpus(verb)
        return run_cell(verb, "pretrain" if isinstance(verb, Pretrain) else "finetune")
    except (InputError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return EXIT_STOPPED


def _parse(arguments: Sequence[str]) -> Any:
    """The verb that was typed. tyro draws a box around its errors; here an error is one line."""
    verbs = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in VERBS.items())
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                tyro.conf.OmitSubcommandPrefixes[Union[verbs]],  # noqa: UP007  # pyright: ignore  made at run time
                args=list(arguments),
                prog="python -m train",
                description=__doc__,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        text = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())
        lines = [line.strip("│╭╮╰╯─ ") for line in text.splitlines()]
        lines = [line for line in lines if line.strip("-")][1:]  # the first is the title of the frame
        message = " ".join(lines).split(" For full helptext")[0]
        raise InputError(f"{message.split(' Argument helptext')[0]}; see python -m train --help") from None


def prepare_corpus(verb: PrepareConfig) -> int:
    """The verb `prepare`."""
    from train.data import prepare

    corpus = prepare.prepare(verb)
    print(f"{corpus.path}: {corpus.num_tokens('train')} tokens, {len(corpus.tasks)} tasks, {corpus.fingerprint[:16]}")
    return 0


def run_cell(verb: Cell, stage: str) -> int:
    """The verbs `pretrain` and `finetune`."""
    import configs.cells

    preset = getattr(configs.cells, verb.preset, None)
    if preset is None or verb.preset not in configs.cells.__all__:
        raise InputError(f"preset = {verb.preset!r} is not one of {', '.join(configs.cells.__all__)}")
    config = preset(verb.architecture, verb.size, seed=verb.seed)
    config = _override(dataclasses.replace(config, study=verb.study), verb.set)

    from train import cell, distributed, loop
    from train.data.corpus import open_corpus

    distributed.initialize()
    corpus = open_corpus(verb.corpus, verb.verify)
    directory = verb.runs / verb.study / config.run_id
    if stage == "finetune" and verb.init_from is None and not (directory / "checkpoints" / "pretrain").is_dir():
        raise InputError(f"{directory}: has no pretrained checkpoint; pretrain it first or give --init-from")
    try:
        with cell.StopOnSignal() as stop:
            state = cell.run_cell(config, corpus, directory, (stage,), verb.resume_from, verb.init_from, stop)
    except loop.Preempted as reason:
        if distributed.is_first():
            print(f"stopped and saved: {reason}; the same command goes on", file=sys.stderr)
        return EXIT_STOPPED
    except (loop.Diverged, OSError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    if state == "locked":
        raise InputError(f"{directory}: another process is at work there")
    if distributed.is_first():
        print(directory)
    return 0


def run_study(verb: Study) -> int:
    """The verb `study`."""
    from train.data.corpus import open_corpus
    from train.launch import local

    study = studies.load(verb.name, verb.config)
    cells = tuple(_override(dataclasses.replace(cell, study=study.name), verb.set) for cell in study.cells)
    study = dataclasses.replace(study, cells=cells)
    _check_cells(study)
    corpus = verb.corpus or Path(study.corpus)
    directory = verb.runs / study.name
    studies.write_manifest(study, directory)
    if study.prepare and verb.corpus is None:
        # In a process of its own: TensorFlow must not stay in memory beside the workers.
        command = [sys.executable, "-m", "train", "prepare", "--source", study.prepare, "--out", str(corpus)]
        if code := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            return code
    else:
        open_corpus(corpus)  # refuses what is damaged, by name, before anything is started
    try:
        reports = local.run(study, directory, corpus, verb.workers or local.default_workers(study))
    except local.Stopped as reason:
        print(reason, file=sys.stderr)
        return EXIT_STOPPED
    return _conclude(study, directory, reports)


def _check_cells(study: StudyConfig) -> None:
    """Refuses unknown architectures, sizes and model options before anything is started."""
    import arch_zoo

    for cell in study.cells:
        input_length, target_length = cell.max_lengths
        lengths = {"max_input_length": input_length, "max_target_length": target_length}
        arch_zoo.config(cell.architecture, cell.size, **(lengths | dict(cell.model)))


def _conclude(study: StudyConfig, directory: Path, reports: dict[str, dict[str, Any]]) -> int:
    found = studies.statuses(study, directory)
    for status in found:
        error = reports.get(status.run_id, {}).get("error") or status.error
        if status.state != "done" or (error and reports.get(status.run_id, {}).get("state") == "failed"):
            locked = reports.get(status.run_id, {}).get("state") == "locked"
            why = "another process is at work there" if locked else error or "its worker ended"
            print(f"error: {directory / status.run_id}: {status.state}: {why}", file=sys.stderr)
    finished = sum(status.state == "done" for status in found)
    print(f"{study.name}: {finished} of {len(found)} cells are done; the runs are in {directory}")
    failed = finished < len(found) or any(report["state"] == "failed" for report in reports.values())
    return EXIT_FAILED if failed else 0


def show_status(verb: Status) -> int:
    """The verb `status`."""
    if verb.format not in ("table", "json"):
        raise InputError(f"format = {verb.format!r} is not one of table, json")
    found = studies.statuses(studies.read_manifest(verb.directory), verb.directory)
    if verb.format == "json":
        print(json.dumps([dataclasses.asdict(status) for status in found], indent=2))
        return 0
    width = max(len(status.run_id) for status in found)
    for s in found:
        nll = "" if s.nll is None else f"nll {s.nll:.3f}"
        print(
            f"{s.run_id:{width}}  {s.state:9}  {s.stage:8}  {s.done:>7}/{s.total}  {nll:10}  {s.error or ''}".rstrip()
        )
    counts = {state: sum(s.state == state for s in found) for state in dict.fromkeys(s.state for s in found)}
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 0


def _override(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """The configuration with KEY=VALUE settings put in."""
    values = configs.to_dict(config)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"set: {setting!r} is not KEY=VALUE")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *path, last = key.split(".")
        inner = values
        for part in path:
            inner = inner.get(part)
            if not isinstance(inner, dict):
                raise InputError(f"set: {key!r}: {part!r} has no settings")
        inner[last] = value
    return configs.from_dict(RunConfig, values, "set")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
