"""Formats of a user's files: recognised by content, read completely, refused by file and row."""

import bz2
import gzip
import json
import lzma

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.data.text import formats
from train.records import InputError

_TEXTS = ["naïve cats 🐈", 'He said "no",\nand\tleft', '"Quoted"', "x" * 200_000]


def _rows(path, *columns):
    return [row for _, row in formats.rows(str(path), columns or ("text",))]


def _refused(path, *columns):
    with pytest.raises(InputError) as caught:
        _rows(path, *columns)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def _json_lines(texts=_TEXTS):
    return "".join(json.dumps({"text": text, "label": "a"}) + "\n" for text in texts).encode()


def _zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, _zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize(
    "name",
    ["c4-train.00000-of-00064.json", "a.ndjson", "a.jsonl", "a.JSONL", "a.txt", "part-00000"],
)
def test_json_lines_are_recognised_by_their_content(tmp_path, name, pack):
    suffix = {gzip.compress: ".gz", _zstd: ".zst"}.get(pack, "")
    for path in (
        tmp_path / (name + suffix),
        tmp_path / name,
    ):  # packed, whether or not the name says so
        path.write_bytes(pack(b"\xef\xbb\xbf\n" + _json_lines() + b"\n"))
        assert formats.kind(str(path)) == "jsonl" and [row["text"] for row in _rows(path)] == _TEXTS


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.txt"])
@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_cells_are_read_as_spreadsheets_and_pandas_write_them(tmp_path, name, separator):
    if (name, separator) in (("a.tsv", ","), ("a.tsv", ";")):
        return
    frame = pd.DataFrame({"text": _TEXTS, "label": ["a", "b", 'c"', ""]})
    for end in ("\n", "\r\n"):
        frame.to_csv(tmp_path / name, sep=separator, index=False, lineterminator=end)
        assert _rows(tmp_path / name) == frame.to_dict("records")


def test_parquet_is_recognised_by_its_content_and_unpacked(tmp_path):
    pq.write_table(pa.table({"text": _TEXTS}), tmp_path / "a.parquet")
    (tmp_path / "b.data").write_bytes((tmp_path / "a.parquet").read_bytes())
    (tmp_path / "c.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
    for name in ("a.parquet", "b.data", "c.parquet.gz"):
        assert [row["text"] for row in _rows(tmp_path / name)] == _TEXTS


def test_files_packed_in_several_parts_are_read_to_the_end(tmp_path):
    halves = _json_lines(_TEXTS[:2]), _json_lines(_TEXTS[2:])
    for suffix, pack in ((".gz", gzip.compress), (".zst", _zstd)):
        path = tmp_path / f"a.jsonl{suffix}"
        path.write_bytes(b"".join(map(pack, halves)))
        assert [row["text"] for row in _rows(path)] == _TEXTS


def test_quotes_that_are_text_stay_in_the_text(tmp_path):
    """GLUE's files have such quotes.

    One cell that continues after its closing quote shows it for the whole file.
    """
    cells = ['"Yes," he said.', "plain", '"Quoted"', 'a 5" disk', '"opened and never closed']
    (tmp_path / "a.tsv").write_text("text\tlabel\n" + "".join(f"{cell}\ta\n" for cell in cells))
    assert [row["text"] for row in _rows(tmp_path / "a.tsv")] == cells
    (tmp_path / "b.tsv").write_text('text\tlabel\n"one\ta\ntwo"\tb\n')
    assert "row 1: a quote begins a cell" in _refused(tmp_path / "b.tsv")
    (tmp_path / "c.csv").write_text('text,label\nx,a\n"one" two,b\n')
    assert "row 2 cannot be read: a quote" in _refused(tmp_path / "c.csv")


def test_plain_text_is_no_table(tmp_path):
    for i, text in enumerate(
        ["text, they say, is long\nand goes on", "{ a brace\n", "[1] a note\n", "text\n", ""]
    ):
        (tmp_path / f"{i}.txt").write_text(text)
        assert formats.kind(str(tmp_path / f"{i}.txt"), ("text",)) == "text"
        assert "this is plain text" in _refused(tmp_path / f"{i}.txt")


_BAD = [
    ("a.txt", "text".encode("utf-16"), "is UTF-16; `iconv"),
    ("a.tsv", "text\tlabel\na\tb\n".encode("utf-16-le"), "NUL bytes as UTF-16 or binary"),
    ("a.txt.bz2", bz2.compress(b"text"), "bzip2; only gzip and zstd"),
    ("a.xz", lzma.compress(b"text"), "xz; only gzip and zstd"),
    ("a.xlsx", b"PK\x03\x04" + bytes(9), "a ZIP archive"),
    ("a.pdf", b"%PDF-1.7", "a PDF"),
    ("a.json", b'[{"text": "a"}]', "one JSON array; `jq -c '.[]'`"),
    ("a.txt", b'\n[\n {"text": "a"}]', "one JSON array"),
    ("a.json", b'{\n  "text": "a"\n}', "row 1 is not a JSON object"),
    ("a.jsonl", _json_lines(["a", "b"])[:-9], 'row 2 is not a JSON object: \'{"text"'),
    ("a.jsonl", b'{"text": "a"}\n\n["b"]\n', "row 3 is not a JSON object"),
    ("a.json", b"[" * 100_000, "one JSON array"),
    ("a.jsonl", b'{"a":' * 100_000, "row 1 is not a JSON object"),
    ("a.jsonl.gz", b"text", "is not packed as its name says"),
    ("a.jsonl.gz", gzip.compress(_json_lines() * 9)[:-99], "cannot be read after line"),
    ("a.tsv", b"text\tlabel\tlabel\na\tb\tc\n", "the header has 'label' twice"),
    ("a.tsv", b"text\tlabel\na\tb\nonly one\n", "row 2 has 1 cells, the header has 2"),
    (
        "a.txt",
        b"text\tlabel\n" + b"good\ta\n" * 5000 + b"b\xe4d\ta\n",
        "line 5002 is not UTF-8 (byte 0xe4, character 2)",
    ),
    ("a.parquet", b"PAR1", "cannot be read as Parquet"),
]


@pytest.mark.parametrize(
    ("name", "content", "message"), _BAD, ids=[message for _, _, message in _BAD]
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in _refused(tmp_path / name)


def test_parquet_that_is_not_utf8_names_the_row(tmp_path):
    bad = pa.array([b"good"] * 2000 + [b"b\xe4d"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    assert "row 2001 is not UTF-8 (byte 0xe4)" in _refused(tmp_path / "a.parquet")


def test_surrogates_and_nul_are_replaced_and_counted():
    assert formats.clean('half \ud83d, \udc00 and "\0" 🐈') == (
        'half \ufffd, \ufffd and "\ufffd" 🐈',
        3,
    )
    assert formats.clean(json.loads('"\\ud83d\\udc08"')) == ("🐈", 0)


def test_a_file_that_changes_its_kind_is_recognised_again(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("text")
    assert formats.kind(str(path)) == "text"
    path.write_bytes(_json_lines())
    assert formats.kind(str(path)) == "jsonl"
