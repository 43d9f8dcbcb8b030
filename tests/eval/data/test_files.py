"""The content of files reaches the cells unchanged, or is refused in one line."""

import bz2
import gzip
import io
import json
import lzma
import math

import numpy as np
import pandas as pd
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.data import entries, files
from eval.data.table import Table
from tests.eval.data.tables import LAW, RUNS
from train.records import InputError

ROWS = [
    dict(zip(RUNS.split()[0].split(","), line.split(","), strict=True)) for line in RUNS.split()[1:]
]
NUMBERS = {"flops_forward", "upstream_nll"}
TYPED = [{k: float(v) if k in NUMBERS else v for k, v in row.items()} for row in ROWS]
LINES = "\n".join(map(json.dumps, TYPED))


def parquet_of(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


GOOD = {
    "as it is": (RUNS, "t.csv"),
    "no last newline": (RUNS.rstrip(), "t.csv"),
    "windows": (RUNS.replace("\n", "\r\n"), "t.csv"),
    "old mac": (RUNS.replace("\n", "\r"), "t.csv"),
    "mark": (b"\xef\xbb\xbf" + RUNS.encode(), "t.csv"),
    "semicolons": (RUNS.replace(",", ";"), "t.csv"),
    "excel's line": ("sep=;\n" + RUNS.replace(",", ";"), "t.csv"),
    "tabs": (RUNS.replace(",", "\t"), "t.tsv"),
    "tabs in csv": (RUNS.replace(",", "\t"), "t.csv"),
    "empty lines": ("\n" + RUNS.replace("\n", "\n\n"), "t.csv"),
    "empty rows": (RUNS + ",,,\n,,,\n", "t.csv"),
    "quotes": ('"' + RUNS.strip().replace(",", '","').replace("\n", '"\n"') + '"', "t.csv"),
    "blanks": (RUNS.replace(",", " , "), "t.csv"),
    "capitals in the ending": (RUNS, "T.CSV"),
    "gzip": (gzip.compress(RUNS.encode()), "t.csv.gz"),
    "gzip without its ending": (gzip.compress(RUNS.encode()), "t.csv"),
    "unpacked on the way": (RUNS, "t.csv.gz"),
    "bz2": (bz2.compress(RUNS.encode()), "t.csv.bz2"),
    "xz": (lzma.compress(RUNS.encode()), "t.csv.xz"),
    "zstd": (RUNS.encode() and zstd(RUNS.encode()), "t.csv.zst"),
    "lines": (LINES + "\n", "t.jsonl"),
    "lines without the last newline": (LINES, "t.jsonl"),
    "lines with empty ones": ("\n" + LINES.replace("\n", "\n\n\n"), "t.jsonl"),
    "lines packed": (gzip.compress(LINES.encode()), "t.jsonl.gz"),
    "lines by another name": (LINES, "t.ndjson"),
    "lines of texts": ("\n".join(map(json.dumps, ROWS)), "t.jsonl"),
    "parquet": (parquet_of(pd.DataFrame(TYPED)), "t.parquet"),
    "parquet of texts": (parquet_of(pd.DataFrame(ROWS)), "t.parquet"),
    "parquet with an index": (parquet_of(pd.DataFrame(TYPED, index=["x", "y", "y"])), "t.parquet"),
    "parquet with a named index": (
        parquet_of(pd.DataFrame(TYPED).set_index("architecture")),
        "t.parquet",
    ),
    "parquet of categories": (
        parquet_of(pd.DataFrame(TYPED).astype({"size": "category"})),
        "t.parquet",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_ways_to_write_one_table(desk, name):
    assert desk.put(*GOOD[name]).slope() == pytest.approx(0.5)


def rows(*lines: str) -> str:
    return "\n".join((RUNS.split()[0], *lines))


BAD = {
    "nothing": ("", "t.csv", "is empty"),
    "blanks": (" \n\n", "t.csv", "is empty"),
    "header only": (RUNS.split()[0] + "\n", "t.csv", "holds no rows"),
    "no header": ("1e7,1e9,4\n1e8,1e9,3\n", "t.csv", "row 1 holds numbers where the names"),
    "a name twice": (
        RUNS.replace("size", "architecture"),
        "t.csv",
        "columns 1 and 2 are both called 'architecture'",
    ),
    "a name twice but for blanks": (
        RUNS.replace("size", " architecture "),
        "t.csv",
        "are both called 'architecture'",
    ),
    "no name": (RUNS.replace("size", ""), "t.csv", "column 2 has no name"),
    "short": (rows("a,s,1e9"), "t.csv", "row 2 has 3 cells, the header 4"),
    "long": (rows("a,s,1e9,4", "a,m,1,000,4"), "t.csv", "row 3 has 5 cells, the header 4"),
    "open quote": (rows('a,"s,1e9,4', "a,m,1e10,3"), "t.csv", "row 2 cannot be read"),
    "utf-16": (RUNS.encode("utf-16"), "t.csv", "is UTF-16 or no text; save it as UTF-8"),
    "utf-16 without a mark": (RUNS.encode("utf-16-le"), "t.csv", "is UTF-16 or no text"),
    "utf-16 lines": (LINES.encode("utf-16"), "t.jsonl", "is UTF-16 or no text"),
    "latin-1": (
        rows("a,s,1e9,4", "caf\xe9,m,1e10,3").encode("latin-1"),
        "t.csv",
        "row 3 is not UTF-8 (byte 0xe9)",
    ),
    "a NUL": (rows("a,s,1e9,4", "a,m\0,1e10,3") + "x" * 300, "t.csv", "UTF-16 or no text"),
    "spreadsheet": (b"PK\x03\x04" + b"x" * 99, "t.csv", "is a spreadsheet or an archive"),
    "parquet by another name": (parquet_of(pd.DataFrame(TYPED)), "t.csv", "is a Parquet file"),
    "no parquet": (RUNS, "t.parquet", "cannot be read as parquet"),
    "half a gzip": (gzip.compress(RUNS.encode() * 9)[:40], "t.csv.gz", "is compressed and damaged"),
    "a flipped bit": (
        gzip.compress(RUNS.encode())[:-9] + b"123456789",
        "t.csv.gz",
        "is compressed and damaged",
    ),
    "torn line": (LINES + '\n{"arch', "t.jsonl", "row 4 is not JSON"),
    "one list": (json.dumps(TYPED), "t.jsonl", "is one JSON list"),
    "a number": (LINES + "\n7", "t.jsonl", "row 4 is a int, expected an object"),
    "a key twice": (LINES + '\n{"size": 1, "size": 2}', "t.jsonl", "row 4 has 'size' twice"),
    "half an emoji": (
        LINES.replace('"a"', '"\\ud83d"', 1),
        "t.jsonl",
        "row 1 holds half a character",
    ),
    "deep": ("[" * 9, "t.jsonl", "is one JSON list"),
    "unknown ending": (RUNS, "t.xlsx", "a table ends in"),
    "thousands": (
        rows('a,s,"1,000,000,000",4'),
        "t.csv",
        "row 2: flops_forward = '1,000,000,000' is not a number; write it",
    ),
    "thousands apart": (rows("a,s,1 000 000 000,4"), "t.csv", "without thousands separators"),
    "decimal comma": (
        rows("a;s;1e9;4,5").replace(",", ";", 3),
        "t.csv",
        "upstream_nll = '4,5' is not a number; write it with a decimal",
    ),
    "suffix": (rows("a,s,1.3B,4"), "t.csv", "'1.3B' is not a number; write it out"),
    "percent": (rows("a,s,1e9,4%"), "t.csv", "'4%' is not a number; write it without the sign"),
    "another minus": (rows("a,s,1e9,\u22124"), "t.csv", "is another character than -"),
    "python's digits": (
        rows("a,s,1_000_000_000,4"),
        "t.csv",
        "flops_forward = '1_000_000_000' is not a number",
    ),
    "arabic digits": (rows("a,s,\u0661\u0662,4"), "t.csv", "is not a number"),
    "a date": (rows("a,s,2024-01-02,4"), "t.csv", "is not a number; it is a date"),
    "yes": (
        '{"architecture": "a", "size": "s", "flops_forward": true, "upstream_nll": 4}',
        "t.jsonl",
        "flops_forward = True is not a number; it is yes or no",
    ),
    "a list": (
        '{"architecture": "a", "size": "s", "flops_forward": [1e9], "upstream_nll": 4}',
        "t.jsonl",
        "[1000000000.0] is not a number; it holds several",
    ),
    "a list for a name": (
        '{"architecture": ["a"], "size": "s", "flops_forward": 1e9, "upstream_nll": 4}',
        "t.jsonl",
        "architecture = ['a'] holds several values",
    ),
    "nested": (
        parquet_of(pd.DataFrame(TYPED).assign(size=[{"d": 1}] * 3)),
        "t.parquet",
        "row 1: size = {'d': 1} holds several values",
    ),
    "infinite": (rows("a,s,inf,4"), "t.csv", "flops_forward = 'inf' is not finite"),
    "out of range": (rows("a,s,1e999,4"), "t.csv", "flops_forward = 1e999 is not finite"),
    "negative": (rows("a,s,-1e9,4"), "t.csv", "flops_forward = -1e9 is not above zero"),
    "zero": (rows("a,s,0,4"), "t.csv", "flops_forward = 0 is not above zero"),
    "no loss at all": (
        rows("a,s,1e9,0"),
        "t.csv",
        "upstream_nll = 0 is not above zero; a loss in nats is needed",
    ),
    "no name of an architecture": (rows(",s,1e9,4"), "t.csv", "row 2: architecture is empty"),
    "no size": (rows("a,,1e9,4"), "t.csv", "row 2: size is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_without_a_table_gives_one_line(desk, name):
    content, file, said = BAD[name]
    assert said in desk.put(content, file).refused("slopes")


def test_rows_are_named_by_their_line(desk):
    table = LAW.splitlines()
    table[0] = "params,note,tokens,loss"
    table[1:] = [line.replace(",", ',"two\nlines",', 1) for line in table[1:]]
    assert "row 12: loss = 'x' is not a number" in desk.put(
        "\n\n".join(table).replace("3.8004", "x")
    ).refused("fit")
    lines = [
        json.dumps(dict(zip(("params", "tokens", "loss"), line.split(","), strict=True)))
        for line in LAW.split()[1:]
    ]
    assert "row 3: loss = 'x'" in desk.put(
        "\n".join(lines).replace("3.8085", "x"), "t.jsonl"
    ).refused("fit")
    frame = pd.read_csv(io.StringIO(LAW)).astype({"loss": object})
    frame["loss"] = frame["loss"].astype(str).replace("3.8085", "x")
    named = frame.set_index(pd.Index([f"w{i}" for i in range(9)]))
    assert "row 3 (w2): loss = 'x'" in desk.put(parquet_of(named), "t.parquet").refused("fit")
    called = frame.set_index(pd.Index([f"w{i}" for i in range(9)], name="run_id"))
    assert "row 3 (run w2): loss = 'x'" in desk.put(parquet_of(called), "t.parquet").refused("fit")


@pytest.mark.parametrize(
    "verb", ["slopes", "pareto", "compare", "report", "fit", "allocate", "predict", "next", "chain"]
)
def test_every_verb_reads_through_one_reader(desk, verb):
    more = {
        "allocate": ["--budget", "1e20"],
        "predict": ["--at", "C=1e20"],
        "chain": ["--at", "C=1e20"],
    }.get(verb, [])
    assert "is UTF-16 or no text" in desk.put(LAW.encode("utf-16")).refused(verb, *more)
    assert "columns 1 and 2 are both called 'params'" in desk.put(
        LAW.replace("tokens", "params")
    ).refused(verb, *more)


def test_candidates_are_read_by_the_same_reader(desk):
    more = desk.folder / "more.csv"
    more.write_text("params;tokens\n1e8;1e10\n1,5e8;1e10\n")
    code, _, err = desk.put(LAW).run("next", "--candidates", str(more))
    assert (
        code == 2
        and f"{more}: row 3: params = '1,5e8' is not a number; write it with a decimal point" in err
    )


def test_a_directory_without_runs_is_refused(desk):
    desk.path = desk.folder
    for verb in ("slopes", "fit"):
        assert "holds no run" in desk.refused(verb)


# Names and cells as people write them: in any script, with blanks and quotes inside but not at
# either end, never empty.
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs", "Cf")), min_size=1, max_size=8
)
PLAIN = TEXT.filter(lambda text: text == text.strip() and text[:1] not in ("'", '"'))
CELL = st.one_of(
    st.none(), st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**60), 2**60), PLAIN
)


@st.composite
def frames(draw) -> pd.DataFrame:
    names = draw(
        st.lists(
            PLAIN.filter(lambda n: not entries.NUMBER.fullmatch(n)),
            min_size=2,
            max_size=4,
            unique=True,
        )
    )
    kinds = draw(
        st.lists(
            st.sampled_from(["text", "float", "int"]), min_size=len(names), max_size=len(names)
        )
    )
    count = draw(st.integers(1, 5))
    cell = {
        "text": PLAIN,
        "float": st.floats(allow_nan=False, allow_infinity=False),
        "int": st.integers(-(2**53), 2**53),
    }
    columns = {
        n: draw(st.lists(cell[k], min_size=count, max_size=count))
        for n, k in zip(names, kinds, strict=True)
    }
    return pd.DataFrame(columns)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(frame=frames())
def test_any_frame_reads_back_equal(frame, tmp_path):
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    frame.to_parquet(tmp_path / "t.parquet")
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in frame.to_dict("records"))
    (tmp_path / "t.jsonl").write_text(lines, encoding="utf-8")
    for name in ("t.csv", "t.tsv", "t.parquet", "t.jsonl"):
        table = Table.read(tmp_path / name)
        assert list(table.frame.columns) == list(frame.columns), name
        for column in frame.columns:
            if pd.api.types.is_numeric_dtype(frame[column]):
                assert table.numbers(column).tolist() == [float(v) for v in frame[column]], name
            else:
                assert table.texts(column).tolist() == frame[column].tolist(), name


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.text(st.sampled_from('a,;"\n\r\t1 {}[]:.e-\ufeff\u2028'), max_size=40),
    )
)
def test_no_bytes_end_in_a_traceback(content, tmp_path):
    for name in ("t.csv", "t.jsonl", "t.parquet"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            frame = files.read(tmp_path / name)
        except InputError as refusal:
            assert name in str(refusal) and "\n" not in str(refusal)
        else:
            assert len(frame) and frame.columns.is_unique and frame.index.is_unique


@given(value=CELL)
def test_a_number_is_a_number_in_every_spelling(value):
    if isinstance(value, int | float):
        assert entries.number(repr(value)) == entries.number(value) == float(value)
        assert entries.number(f" {value!r} ") == float(value)
    elif value is None or not entries.NUMBER.fullmatch(value):
        assert math.isnan(entries.number(value)) or "inf" in str(value).lower()
    assert entries.is_missing(value) == (value is None)


def test_whole_numbers_keep_every_digit():
    assert [
        entries.ordinal(v)
        for v in ("9007199254740993", 9007199254740993, np.int64(7), 7.0, "s0", "-3")
    ] == [9007199254740993, 9007199254740993, 7, 7, 0, -3]
    assert [
        entries.ordinal(v) for v in ("1.5", 1.5, "v2-step9", "", None, True, "1,000", "nan")
    ] == [None] * 8
