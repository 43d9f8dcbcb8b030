"""Runs commands with options of the wrong type, sign, size or form, and checks how each ends.

    python -m benchmarks.fuzz_commands                        # 600 commands, a few minutes
    python -m benchmarks.fuzz_commands --commands 50 --seed 7 --verb fit

Every option of every command, and every setting of a run through `--set`, gets one value drawn at
random. A command may do its work or refuse, but a refusal must be one line on standard error, with
exit code 2. These are failures:

- a traceback: an exception that leaves the command;
- a hang: no end within `--patience` seconds;
- accepted nonsense: the command continues although it was given a negative number, NaN or infinity
  where such a number has no meaning, or text instead of a number.

Commands run in this process, on a small corpus, a simulated study and a table for a law. Training
stops after its first step, as it would after SIGTERM. Prints each failure on stderr and the tally
as JSON on stdout; exits with 1 if there was a failure.
"""

import argparse
import collections
import contextlib
import dataclasses
import io
import json
import math
import os
import random
import re
import signal
import sys
import tempfile
import traceback
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import arch_zoo.__main__ as zoo
import eval.__main__ as evaluation
import train.__main__ as training
from eval.simulation import sweeps
from tests.eval import run_directories
from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.run import cell
from train.study.config import OptimizerConfig, RunConfig, StageConfig

NUMBERS = (
    "-1",
    "-5.5",
    "0",
    "1",
    "2.5",
    "1e9",
    "4294967296",
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "-inf",
    "95",
    "0x10",
)
WORDS = (
    "",
    " ",
    "text",
    "\u00e9",
    "a" * 300,
    "no/such/place",
    "~",
    "a=b",
    "=",
    "[",
    "{}",
    "null",
    "true",
    "\x1b[31m",
)
JSON_VALUES = (
    "-1",
    "0",
    "2.5",
    "1e9",
    "1e99",
    "NaN",
    "Infinity",
    "-Infinity",
    '"text"',
    "text",
    "[]",
    "[1]",
    "{}",
    "null",
    "true",
    "[1,2,3]",
    '{"a": 1}',
    "4294967296",
    "-0.0",
    '""',
)

MAINS = {
    "train": lambda arguments: training.main(arguments),
    "eval": lambda arguments: evaluation.main(arguments),
    "arch_zoo": lambda arguments: zoo.main(arguments),
}
STAGES = ("pretrain", "finetune")
SMALL = ("steps", "batch_size", "input_length", "target_length", "eval_batches", "eval_batch_size")

# Options and settings for which a negative or infinite value has a meaning, such as "the rest" in a
# mesh, or "no limit".
SIGNED = {"mesh"}
INFINITE = {"unique", "budget"}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a value can be given.

    Attributes:
      room: train, eval or arch_zoo.
      verb: the command.
      option: what is typed before the value, such as --level or --set.
      key: the key of `--set`; empty for other options.
      numeric: whether the value must be a number.
    """

    room: str
    verb: str
    option: str
    key: str = ""
    numeric: bool = False

    @property
    def name(self) -> str:
        """The option's or the setting's own name."""
        return (self.key or self.option.removeprefix("--")).split(".")[-1].replace("-", "_")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended: `kind` is refused, ran, traceback, hang, nonsense or untidy."""

    arguments: tuple[str, ...]
    kind: str
    said: str = ""


class Hang(BaseException):
    """The command has not ended in time."""


@dataclasses.dataclass(frozen=True)
class Ground:
    """The files that commands are tried on.

    A corpus, a study of records, a table for a law, and a study's declaration.
    """

    directory: Path

    def prepare(self) -> "Ground":
        """Writes all files."""
        write_corpus(self.directory / "corpus")
        run_directories.write_study(
            self.directory / "runs", sizes=run_directories.LADDER[:3], seeds=2
        )
        from train.study.directory import write_manifest

        write_manifest(tiny_study.study(), self.directory / "runs" / "tiny")
        for config in tiny_study.study().cells:  # all done, so that `watch` ends
            (self.directory / "runs" / "tiny" / config.run_id).mkdir()
            records.RunWriter(self.directory / "runs" / "tiny" / config.run_id).status("done")
        rows = ["N,D,loss"]
        for n in (1e7, 3e7, 1e8, 3e8, 1e9):
            rows += [
                f"{n:g},{d:g},{1.7 + 400 * n**-0.34 + 400 * d**-0.28:.6f}"
                for d in (1e9, 3e9, 1e10, 3e10)
            ]
        (self.directory / "law.csv").write_text("\n".join(rows) + "\n")
        names = {"rate": "learning_rate", "loss": "upstream_nll"}
        sweep = sweeps.Sweep().runs(0).rename(columns=names)
        sweep.to_csv(self.directory / "sweep.csv", index=False)
        lines = [
            f"The {name} sees {number} birds on its way home."
            for number in range(60)
            for name in ("cat", "dog")
        ]
        (self.directory / "words.txt").write_text("\n\n".join(lines))
        return self

    def pretrained(self) -> Path:
        """Checkpoints of a pretraining; the first call runs it for one step."""
        where = (
            self.directory
            / "pretrained"
            / "single"
            / "transformer-nano-s0"
            / "checkpoints"
            / "pretrain"
        )
        if not where.is_dir():
            training.main(
                [
                    "pretrain",
                    *self.base("train", "pretrain"),
                    "--runs",
                    str(self.directory / "pretrained"),
                ]
            )
        return where

    def language_model(self) -> Path:
        """A finished run of a decoder-only model; the first call trains it for one step."""
        where = (
            self.directory / "language_model" / "single" / "transformer-nano-NL1-decoder_only-s0"
        )
        if not where.is_dir():
            stage = {"steps": 1, "batch_size": 8, "target_length": 24, "objective": "causal_lm"}
            stage |= {"eval_batches": 1, "eval_batch_size": 8}
            settings = [f"pretrain.{key}={value}" for key, value in stage.items()]
            corpus, runs = str(self.directory / "corpus"), str(where.parents[1])
            command = ["pretrain", "--family", "decoder_only", "--size", "nano-NL1"]
            command += ["--corpus", corpus, "--runs", runs]
            training.main([*command, "--set", "finetune=null", *settings])
        return where

    def exported(self) -> Path:
        """A folder that `import` reads; made when it is first asked for."""
        where = self.directory / "exported"
        if not where.exists():
            corpus = ["--corpus", str(self.directory / "corpus")]
            training.main(["export", str(self.language_model()), "--out", str(where), *corpus])
        return where

    def base(self, room: str, verb: str) -> list[str]:
        """A command that would succeed within a few seconds."""
        runs, out = self.directory / "runs", self.directory / "out"
        corpus = ["--corpus", str(self.directory / "corpus")]
        declared = ["--config", str(Path(tiny_study.__file__)), "--runs", str(out), *corpus]
        small = [
            f"{stage}.{key}={getattr(tiny_study.STAGE, key)}" for stage in STAGES for key in SMALL
        ]
        small += ["model.num_encoder_layers=1", "model.num_decoder_layers=1"]
        one_cell = [*corpus, "--runs", str(out), "--set", *small]
        text = ["--text", str(self.directory / "words.txt"), "--tasks", "--out", str(out / "c")]
        study, law = str(runs / "simulated"), str(self.directory / "law.csv")
        bases = {
            "prepare": text,
            "pretrain": one_cell,
            "finetune": one_cell,
            "study": [*declared, "--workers", "1"],
            "plan": declared,
            "status": [str(runs / "tiny")],
            "watch": [str(runs / "tiny")],
            "slurm": [*declared, "--dry-run"],
            "jobset": [*declared, "--dry-run"],
            "context-rank": corpus,
            "extract": [*corpus, "--prompt", "4", "--answer", "4", "--batches", "1"],
            "rank-heads": [*corpus, "--ranks", "2", "--steps", "2", "--batches", "1"],
            "probes": ["parity"],
            "settings": ["steps"],
            "tasks": [],
            "generate": [*corpus, "--text", "the cat", "--max-length", "2"],
            "evaluate": [*corpus, "--text", str(self.directory / "words.txt"), "--window", "16"],
            "export": ["--out", str(out / "exported"), *corpus],
            "import": [str(self.exported()), "--out", str(out / "imported")],
            "coordinates": ["--size", "nano-NL1-DM8-FF8-NH1-KV8", "--steps", "1", "--seeds", "2"],
            "report": [study, "--out", str(out / "report")],
            "slopes": [study],
            "pareto": [study],
            "compare": [study],
            "compare-studies": [study, study],
            "saturation": [study],
            "archive": [study, "--out", str(out / "records.tar.gz")],
            "tune": [str(self.directory / "sweep.csv")],
            "fit": [law, "--bootstrap", "20"],
            "predict": [law, "--at", "N=1e9,D=1e10", "--bootstrap", "20"],
            "allocate": [law, "--budget", "1e20", "--bootstrap", "20"],
            "next": [law, "--bootstrap", "20"],
            "chain": [
                study,
                "--score",
                "downstream_mean",
                "--perfect",
                "100",
                "--where",
                "architecture=albert",
                "--at",
                "N=1e6,D=1e7",
                "--bootstrap",
                "20",
            ],
            "show": ["transformer", "--size", "nano"],
            "list": [],
            "sizes": [],
        }
        if verb == "finetune":
            return [*bases[verb], "--init-from", str(self.pretrained())]
        if verb in ("extract", "rank-heads", "generate", "evaluate", "export"):
            return [str(self.language_model()), *bases[verb]]
        return bases[verb]


def places() -> list[Place]:
    """Every option of every command, and every setting of a run."""
    found = []
    kinds = {("train", verb): kind for verb, kind in training.VERBS.items()}
    kinds |= {("eval", verb): kind for verb, kind in evaluation._verbs("").items()}
    kinds |= {("arch_zoo", verb): kind for verb, kind in zoo.VERBS.items()}
    for (room, verb), kind in kinds.items():
        found += [Place(room, verb, option, numeric=numeric) for option, numeric in _options(kind)]
    settings = {
        f"{stage}.{name}": kind
        for stage in ("pretrain", "finetune")
        for name, kind in _fields(StageConfig)
    }
    settings |= {f"pretrain.optimizer.{name}": kind for name, kind in _fields(OptimizerConfig)}
    settings |= dict(_fields(RunConfig)) | {"model.nonsense": str}
    for verb in ("pretrain", "plan"):
        found += [
            Place("train", verb, "--set", key, _is_number(kind)) for key, kind in settings.items()
        ]
    return found


def _fields(kind: type) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return ((field.name, hints[field.name]) for field in dataclasses.fields(kind))


def _options(kind: type) -> Iterator[tuple[str, bool]]:
    for name, hint in _fields(kind):
        while typing.get_origin(hint) is Annotated:
            hint = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(hint):
            yield from _options(typing.cast(type, hint))
        else:
            yield f"--{name.replace('_', '-')}", _is_number(hint)


def _is_number(kind: Any) -> bool:
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Mapping:  # of numbers, perhaps, but not one
        return False
    return kind in (int, float) or any(
        _is_number(part) for part in typing.get_args(kind) if part is not type(None)
    )


def command(place: Place, value: str, ground: Ground) -> list[str]:
    """The complete command line that gives `value` at `place`."""
    base = ground.base(place.room, place.verb)
    if not place.key:
        return [place.verb, *base, f"{place.option}={value}"]
    base = [word for word in base if not word.startswith(f"{place.key}=")]
    return [place.verb, *base, "--set", f"{place.key}={value}"]


def run(place: Place, value: str, ground: Ground, patience: float) -> Outcome:
    """Runs one command and returns how it ended."""
    arguments = command(place, value, ground)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _alarm(patience):
        try:
            code = MAINS[place.room](arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except Hang:
            return Outcome(tuple(arguments), "hang")
        except BaseException:  # noqa: BLE001  whatever it is, a person would have seen it
            return Outcome(tuple(arguments), "traceback", traceback.format_exc()[-1500:])
    said = err.getvalue()
    if "Traceback" in said + out.getvalue():
        return Outcome(tuple(arguments), "traceback", said[-1500:])
    errors = [line for line in said.splitlines() if not line.startswith("warning: ")]
    if code == 2:
        tidy = any(line.startswith("error: ") for line in errors) and not re.search(
            r"[\x00-\x08\x1b]", said
        )
        return Outcome(tuple(arguments), "refused" if tidy else "untidy", said[-800:])
    if is_nonsense(place, value):
        return Outcome(tuple(arguments), "nonsense", said[-800:])
    return Outcome(tuple(arguments), "ran", said[-200:])


def is_nonsense(place: Place, value: str) -> bool:
    """Whether no command could do anything sensible with this value."""
    if not place.numeric:
        return False
    try:
        number = float(json.loads(value)) if place.key else float(value)
    except (ValueError, TypeError):
        return not (
            place.key and value in ("null", "[]", "[1]", "[1,2,3]")
        )  # the words for None and tuples
    if math.isnan(number) or (math.isinf(number) and place.name not in INFINITE):
        return True
    return number < 0 and place.name not in SIGNED


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def hang(number: int, frame: Any) -> None:
        raise Hang

    old = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@contextlib.contextmanager
def apart(directory: Path) -> Iterator[None]:
    """Runs commands in this directory, so that paths drawn at random are inside it.

    Training saves and ends after its first step, as it does after SIGTERM.
    """
    ask, home = cell.StopOnSignal.__call__, os.environ.get("HOME")
    cell.StopOnSignal.__call__ = lambda self: True  # pyright: ignore  # for the time of the block
    os.environ["HOME"] = str(directory)  # what "~" means
    try:
        with contextlib.chdir(directory):
            yield
    finally:
        cell.StopOnSignal.__call__ = ask
        os.environ.pop("HOME") if home is None else os.environ.update(HOME=home)


def broken(verbs: Sequence[tuple[str, str]], ground: Ground) -> list[str]:
    """The commands that fail without a wrong value; their refusals would mean little."""
    found = []
    for room, verb in verbs:
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = MAINS[room]([verb, *ground.base(room, verb)])
        if code not in (0, 75):
            found.append(f"{room} {verb}: {said.getvalue()[-300:]}")
    return found


def values(place: Place) -> Sequence[str]:
    """The values to try at a place."""
    return JSON_VALUES if place.key else (*NUMBERS, *WORDS)


def main() -> int:
    """Prints the tally; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", type=int, default=600, help="(default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the values (default: 0)")
    parser.add_argument(
        "--patience",
        type=float,
        default=120.0,
        help="seconds that a command may take (default: 120)",
    )
    parser.add_argument("--verb", default="", help="try only this command")
    options = parser.parse_args()
    chosen = [place for place in places() if options.verb in ("", place.verb)]
    rng, tally, failures = random.Random(options.seed), collections.Counter(), []
    with tempfile.TemporaryDirectory() as directory, apart(Path(directory)):
        ground = Ground(Path(directory)).prepare()
        if refused := broken(
            list(dict.fromkeys((place.room, place.verb) for place in chosen)), ground
        ):
            print(*refused, sep="\n", file=sys.stderr)
            return 1
        order = [
            place
            for _ in range(1 + options.commands // len(chosen))
            for place in rng.sample(chosen, len(chosen))
        ]
        for number, place in enumerate(order[: options.commands]):
            outcome = run(place, rng.choice(values(place)), ground, options.patience)
            tally[outcome.kind] += 1
            if outcome.kind not in ("ran", "refused"):
                failures.append(" ".join(outcome.arguments).replace(directory, "DIR"))
                print(
                    f"{outcome.kind}: {failures[-1]!r}\n{outcome.said}", file=sys.stderr, flush=True
                )
            elif number % 50 == 0:
                print(f"{number} of {options.commands}", file=sys.stderr, flush=True)
    bad = ("traceback", "hang", "nonsense", "untidy")
    ended = {kind: tally[kind] for kind in ("ran", "refused", *bad)}
    found = {"commands": sum(tally.values()), "seed": options.seed, "places": len(chosen)}
    print(json.dumps(found | {"ended": ended, "failures": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
