"""Tables as text, and the command line that reads them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from eval.__main__ import main

LAW = """params,tokens,loss
10000000,1000000000,4.7057
10000000,10000000000,4.1173
10000000,100000000000,3.8085
100000000,1000000000,3.8004
100000000,10000000000,3.2120
100000000,100000000000,2.9032
1000000000,1000000000,3.3866
1000000000,10000000000,2.7982
1000000000,100000000000,2.4894
"""
RUNS = """architecture,size,flops_forward,upstream_nll
a,s,1e9,4
a,m,1e10,3.5
a,l,1e11,3
"""


class Desk:
    """A folder for one table at a time, and the commands that read it."""

    def __init__(self, folder: Path, capsys):
        """Starts without a table."""
        self.folder, self.capsys, self.path = folder, capsys, folder / "t.csv"

    def put(self, content: str | bytes, name: str = "t.csv") -> "Desk":
        """Writes the table."""
        self.path = self.folder / name
        self.path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self

    def run(self, verb: str, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        code = main([verb, str(self.path), *arguments])
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def refused(self, verb: str, *arguments: str) -> str:
        """The one-line error about the table; it must name the file."""
        code, out, err = self.run(verb, *arguments)
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert code == 2 and out == "" and len(lines) == 1 and lines[0].startswith("error: "), (
            out,
            err,
        )
        assert str(self.path) in lines[0]
        return lines[0]

    def slopes(self, *arguments: str, pair: str = "FU") -> tuple[list[dict[str, str]], str]:
        """The rows of the semilog slopes, and the warnings."""
        code, out, err = self.run(
            "slopes", "--pairs", pair, "--links", "semilog", "--format", "csv", *arguments
        )
        assert code == 0, err
        return list(csv.DictReader(io.StringIO(out))), err

    def slope(self, *arguments: str, pair: str = "FU") -> float:
        """The slope of the only architecture."""
        (row,), _ = self.slopes(*arguments, pair=pair)
        return float(row["slope"])

    def fit(self, *arguments: str) -> tuple[dict[str, Any], str]:
        """The answer of `fit`, and the warnings on stderr."""
        code, out, err = self.run("fit", "--format", "json", "--bootstrap", "0", *arguments)
        assert code == 0, err
        return json.loads(out), err
