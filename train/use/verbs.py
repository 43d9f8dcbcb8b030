"""The verb `generate`."""

import dataclasses
import json
from pathlib import Path
from typing import Literal

import tyro

from train.command_line import TableOrJson
from train.records import InputError
from train.use.settings import Decoding


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
        try:
            lines = self.input.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise InputError(f"input: {self.input} cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise InputError(f"input: {self.input}: byte {error.start} is not UTF-8") from None
        if not lines:
            raise InputError(f"input: {self.input} has no line")
        return lines


VERBS = {"generate": GenerateVerb}
