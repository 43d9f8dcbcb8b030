"""The commands of README and docs run as typed, in the order of their page, in a new folder.

The words are those of the pages; the work behind them is small. A run takes a few steps on a tiny
corpus, and a study has its first few cells. Records that would take hours come from simulated
studies. What needs a cluster, a download or an accelerator is only parsed, and so is what measures
this machine. Pages with a test of their own: exchange, your_data, probes, adding_an_architecture,
adding_more, laptop_to_pod.
"""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import arch_zoo.__main__ as zoo
import eval.__main__ as evaluation
import train.__main__ as training
from arch_zoo import command_line
from configs import presets
from tests.eval import run_directories
from tests.train.tiny_corpus import write_corpus
from train.data.corpus import open_corpus
from train.run import cell
from train.study.config import RunConfig, StageConfig, StudyConfig
from train.study.verbs import Declared

ROOT = Path(__file__).parents[2]
PAGES = (
    "README",
    "docs/quickstart",
    "docs/language_models",
    "docs/tuning",
    "docs/training",
    "docs/source_claims",
    "docs/reading_a_report",
    "docs/scaling_laws",
    "docs/tables",
    "docs/install",
    "CONTRIBUTING",
)
PROGRAMS = {"train": training, "eval": evaluation, "arch_zoo": zoo}
FENCED = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
TYPED = re.compile(r"^ *(?:\$ )?(?:[A-Z_]+=\S+ )*((?:python -m|make) .*?)(?: +#.*)?$", re.MULTILINE)
# Only parsed: they need a download, a cluster or a GPU, or measure this machine for minutes.
PARSED = re.compile(r"corpora/c4|--preset t5|python -m benchmarks|\.\.\.|--calibrate")
OF_TESTS = {"make test", "make test-fast", "make lint", "make docs", "make shell"}
DEMO = "make demo"  # the same on three pages
KEPT_CELLS = 2


def commands(page: str) -> list[str]:
    """The commands in a page's blocks, with continued lines joined."""
    text = (ROOT / f"{page}.md").read_text(encoding="utf-8").replace("\\\n", " ")
    # A block is between fences, without a language, or indented by four spaces.
    plain = FENCED.sub(lambda block: "" if block[1] else indented(block[2]), text)
    lines = [line for line in plain.splitlines() if line.startswith("    ")]
    return TYPED.findall("\n".join(lines))


def indented(block: str) -> str:
    """The lines four spaces further right."""
    return "".join(f"    {line}\n" for line in block.splitlines())


def small_stage(stage: StageConfig | None) -> StageConfig | None:
    """A few steps of the same kind."""
    if stage is None:
        return None
    optimizer = dataclasses.replace(stage.optimizer, warmup_steps=1)
    few = {"steps": 2, "eval_batches": 1, "eval_batch_size": 4, "eval_examples": 8}
    few |= {"log_every": 1, "checkpoint_every": 2, "eval_every": min(stage.eval_every, 1)}
    few |= {"sources": {}}  # the tiny corpus has no parts
    return dataclasses.replace(stage, **few, optimizer=optimizer)


def small_run(run: RunConfig) -> RunConfig:
    """The same model and objective in a few steps."""
    stages = {name: small_stage(getattr(run, name)) for name in ("pretrain", "finetune")}
    return dataclasses.replace(run, **stages)


def small_study(study: StudyConfig) -> StudyConfig:
    """Its last cells, which are the smallest."""
    cells = tuple(small_run(run) for run in study.cells[-KEPT_CELLS:])
    return dataclasses.replace(study, cells=cells, corpus="corpora/python", prepare="")


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """What the pages say is there: a corpus, finished runs, records, tables."""
    root = tmp_path_factory.mktemp("fresh")
    corpus = open_corpus(write_corpus(root / "corpora" / "python"))
    run = presets.cpu_text("llama", "nano")
    for study in ("saturation", "single"):
        cell.run_cell(small_run(run), corpus, root / "runs" / study / "RUN", quiet=True)
    shutil.copytree(ROOT / "examples", root / "examples")
    with tarfile.open(ROOT / "examples" / "cpu.tar.gz") as records:
        records.extractall(root / "runs", filter="data")
    several = ("glu", "lconv", "transformer")
    for name in ("kaplan", "lr_sweep", "modern"):
        run_directories.write_study(root / "runs", several, seeds=2, study=name)
    (root / "Makefile").write_text((ROOT / "Makefile").read_text())
    write_tables(root)
    return root


def write_tables(root: Path) -> None:
    """Tables as users have them: of runs, and of checkpoints."""
    flops = np.geomspace(1e9, 1e12, 10)
    table = pd.DataFrame(
        {
            "router": ["top1", "top2"] * 5,
            "label": np.repeat([f"s{i}" for i in range(5)], 2),
            "flops_per_step": flops,
            "flops": 1e6 * flops,
            "n": flops / 1e4,
            "d": 1e9 * np.array([1, 2, 3, 1, 5, 3, 2, 9, 4, 7]),
            "loss": 2 + flops**-0.1 + 0.01 * np.random.default_rng(0).normal(size=10),
        }
    )
    table.to_csv(root / "runs.csv", index=False)
    names = {"router": "architecture", "label": "size", "loss": "upstream_nll"}
    columns = [*names, "flops"]
    table[columns].rename(columns=names).to_csv(root / "anybodys.csv", index=False)
    steps = np.arange(1, 5)
    checkpoints = {"model": "pythia-70m", "shots": "zero", "step": steps}
    checkpoints["lambada_openai.ppl"] = 100.0 / steps
    pd.DataFrame(checkpoints).to_csv(root / "pythia_v1_evals.csv", index=False)


@pytest.fixture
def small(monkeypatch):
    """Makes the presets and declared studies small."""
    for name in ("cpu", "cpu_text"):
        preset = getattr(presets, name)
        monkeypatch.setattr(
            presets, name, lambda *args, preset=preset, **kw: small_run(preset(*args, **kw))
        )
    load = Declared.load
    monkeypatch.setattr(Declared, "load", lambda self: small_study(load(self)))


def recipe(typed: str) -> list[str]:
    """What `make` would run of this project's programs."""
    target = shlex.split(typed)[1:]
    shown = ["make", "--dry-run", "--always-make", "--file", str(ROOT / "Makefile"), *target]
    lines = subprocess.run(shown, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return re.findall(r"(python -m (?:train|eval) [^\n]*)", lines)


def run(typed: str, capsys) -> None:
    """Runs one command as typed."""
    _, _, program, *arguments = shlex.split(typed)
    if program.startswith("benchmarks"):
        assert find_spec(program), typed
    elif program == "arch_zoo":
        verb = command_line.parse(arguments, zoo.VERBS, "python -m arch_zoo", "")
        verb.run()
    elif program in PROGRAMS and PARSED.search(typed):
        PROGRAMS[program].parse([word for word in arguments if word != "..."])
    elif program in PROGRAMS:
        code = PROGRAMS[program].main(arguments)
        assert code == 0, (typed, capsys.readouterr().err)
    else:
        assert program in ("pytest", "ruff", "pyright"), typed
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_as_typed(page, there, small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(shutil.copytree(there, tmp_path / "fresh"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    found = commands(page)
    assert found, f"{page} has no command"
    for typed in found:  # what the page itself makes is not there yet
        if typed.startswith("make study"):
            shutil.rmtree(
                Path("runs") / (typed.partition("STUDY=")[2] or "cpu"), ignore_errors=True
            )
    for typed in found:
        if typed in OF_TESTS or (typed == DEMO and page != "README"):
            assert f"\n{typed.removeprefix('make ')}:" in (ROOT / "Makefile").read_text()
        elif typed.startswith("make"):
            for step in recipe(typed):
                run(step, capsys)
        else:
            run(typed, capsys)
