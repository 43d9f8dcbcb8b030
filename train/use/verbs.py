"""The verbs that use finished runs: `generate`, `evaluate`, `export` and `import`."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from train.command_line import TableOrJson
from train.ranges import CountOrZero
from train.records import InputError
from train.study.verbs import parse_settings
from train.use.settings import Decoding, TextWindows


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateVerb(Decoding):
    """Prints what a finished run writes after each text.

    Text is greedily decoded unless --beams or --temperature is given.

    Attributes:
      run_directory: the directory of the run.
      text: one or several texts.
      input: a file with one text in each line, instead of `text`.
      corpus: the corpus that the run was trained on; by default it is looked for in `corpora`.
      stage: pretrain or finetune; by default the last one that is finished.
      format: table prints one line for each text, with new lines escaped; json prints objects with
        text and output.
    """

    run_directory: tyro.conf.Positional[Path]
    text: tuple[str, ...] = ()
    input: Path | None = None
    corpus: Path | None = None
    stage: Literal["pretrain", "finetune"] | None = None
    format: TableOrJson = "table"

    def run(self) -> int:
        """Prints a line for each text; returns the exit code."""
        texts = self._texts()
        from train.use.loaded import load

        run = load(self.run_directory, self.corpus, self.stage)
        how = Decoding(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Decoding)})
        for text, output in zip(texts, run.generate(texts, how), strict=True):
            row = json.dumps({"text": text, "output": output}, ensure_ascii=False)
            print(row if self.format == "json" else output.replace("\n", "\\n"))
        return 0

    def _texts(self) -> list[str]:
        if bool(self.text) == bool(self.input):
            raise InputError("text: give --text or --input")
        if self.input is None:
            return list(self.text)
        lines = read_text(self.input, "input").splitlines()
        if not lines:
            raise InputError(f"input: {self.input} has no line")
        return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateVerb(TextWindows):
    """Evaluates a finished or imported run: bits per byte of a text, held-out loss, tasks.

    With --text it prints the bits per byte of each file. Otherwise it prints the held-out loss on a
    corpus and the scores of its tasks, and adds them to the records of an imported run, so that
    `eval report` can compare imported models.

    Attributes:
      run_directory: the directory of the run.
      text: text files.
      tasks: names of tasks of the corpus; by default all that it has.
      heldout: whether the held-out loss is taken.
      corpus: a corpus with the run's vocabulary; by default the one it was trained on.
      stage: pretrain or finetune; by default the last one that is finished.
      set: settings of the evaluation as KEY=VALUE, such as eval_examples=100; by default those of
        the run's training.
      format: table, or json for objects.
    """

    run_directory: tyro.conf.Positional[Path]
    text: tuple[Path, ...] = ()
    tasks: tuple[str, ...] = ()
    heldout: bool = True
    corpus: Path | None = None
    stage: Literal["pretrain", "finetune"] | None = None
    set: tuple[str, ...] = ()
    format: TableOrJson = "table"

    def run(self) -> int:
        """Prints a line for each value; returns the exit code."""
        for option in ("tasks", "set"):
            if self.text and getattr(self, option):
                raise InputError(f"{option}: has no meaning with --text")
        settings = parse_settings(self.set)
        texts = [read_text(path, "text") for path in self.text]
        from train.use.loaded import load

        rows = self._texts(load, texts) if texts else self._on_corpus(load, settings)
        if self.format == "json":
            for row in rows:
                known = {k: None if x != x else x for k, x in row.items()}  # NaN is no JSON
                print(json.dumps(known, ensure_ascii=False))
        else:
            print(table(rows))
        return 0

    def _texts(self, load: Any, texts: list[str]) -> list[dict[str, Any]]:
        from train.use import text_loss

        run = load(self.run_directory, self.corpus, self.stage)
        return [
            {"text": str(path), **text_loss.score(run, text, self)._asdict()}
            for path, text in zip(self.text, texts, strict=True)
        ]

    def _on_corpus(self, load: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
        from train.data.corpus import open_corpus
        from train.use import evaluating

        run = load(self.run_directory, self.corpus, self.stage)
        if run.corpus is None and self.corpus is None:
            raise InputError("corpus: an imported run has none; give --corpus")
        corpus = run.corpus or open_corpus(str(self.corpus), verify=False)
        rows = []
        for name in [*(["heldout"] if self.heldout else []), *(["tasks"] if corpus.tasks else [])]:
            chosen = {"tasks": list(self.tasks)} if name == "tasks" else {}
            stage = evaluating.stage_of(run, name, {**settings, **chosen})
            print(f"{name}: {evaluating.described(stage, name)}", file=sys.stderr)
            rows += evaluating.evaluate(run, corpus, name, stage)
        if evaluating.keep(run, corpus, rows):
            print(f"added to the records of {self.run_directory}", file=sys.stderr)
        columns = ("task", "split", "metric", "value", "stderr", "n")
        return [{key: row[key] for key in columns} for row in rows]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportVerb:
    """Writes a finished run for others: configuration, weights and tokenizer in one folder.

    A model that Hugging Face's transformers do not have is written under the zoo's own names.

    Attributes:
      run_directory: the directory of the run.
      out: the folder; must not exist, or be empty.
      to: hf for Hugging Face's transformers, zoo for the zoo's own names.
      corpus: the corpus that the run was trained on; by default it is looked for in `corpora`.
      stage: pretrain or finetune; by default the last one that is finished.
    """

    run_directory: tyro.conf.Positional[Path]
    out: Path
    to: Literal["hf", "zoo"] = "hf"
    corpus: Path | None = None
    stage: Literal["pretrain", "finetune"] | None = None

    def run(self) -> int:
        """Prints the class and the folder; returns the exit code."""
        from train.use.exporting import export
        from train.use.loaded import load
        from train.use.weights import check_new

        check_new(self.out)  # before the run is loaded, which takes longer
        done = export(load(self.run_directory, self.corpus, self.stage), self.out, self.to)
        if done.why_own:
            print(f"under the zoo's own names: {done.why_own}", file=sys.stderr)
        print(f"{self.out}: {done.kind}, {done.tensors} tensors")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportVerb:
    """Makes a run of a model in a local folder, which everything that reads runs can then use.

    Attributes:
      folder: has config.json, safetensors and, for text, a tokenizer, as Hugging Face's tools or
        `export` write them.
      out: the directory of the new run, such as runs/ext/t5-small.
      vocab_size: the number of ids that the run gets: rows are cut, or rows of zeros are added; 0
        keeps those of the file.
    """

    folder: tyro.conf.Positional[Path]
    out: Path
    vocab_size: CountOrZero = 0

    def run(self) -> int:
        """Prints the run's directory and what it is; returns the exit code."""
        from train.use.importing import import_folder

        done = import_folder(self.folder, self.out, self.vocab_size)
        if done.resized:
            print(f"vocabulary: {done.resized}", file=sys.stderr)
        if not done.tokenizer:
            print("no tokenizer: the run has token ids only, no text", file=sys.stderr)
        print(f"{self.out}: {done.cfg.name} {done.cfg.size}, {done.params:,} parameters")
        return 0


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys as text, one line each."""
    cells = [list(rows[0]) if rows else []] + [
        [f"{x:.4g}" if isinstance(x, float) else "" if x is None else str(x) for x in row.values()]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join(lines)


def read_text(path: Path, key: str) -> str:
    """The content of a text file.

    Raises:
      InputError: it cannot be read, is empty, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode()  # read_text would change the ends of lines
    except OSError as error:
        raise InputError(f"{key}: {path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{key}: {path}: byte {error.start} is not UTF-8") from None
    if not text:
        raise InputError(f"{key}: {path} is empty")
    return text


VERBS = {
    "generate": GenerateVerb,
    "evaluate": EvaluateVerb,
    "export": ExportVerb,
    "import": ImportVerb,
}
