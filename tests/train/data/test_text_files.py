import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.data import overlap, text_files
from train.records import InputError

_TEXTS = ["naïve cats 🐈", "line one\nline two", "x" * 100]


def _jsonl(texts):
    return "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in texts).encode()


def _zstd(path, content):
    with pa.output_stream(str(path), compression="zstd") as file:
        file.write(content)


def test_tables_of_every_kind_give_the_same_documents(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(_jsonl(_TEXTS))
    with gzip.open(tmp_path / "b.jsonl.gz", "wb") as file:
        file.write(_jsonl(_TEXTS))
    _zstd(tmp_path / "c.jsonl.zst", _jsonl(_TEXTS))
    pq.write_table(pa.table({"text": _TEXTS}), tmp_path / "d.parquet")
    for file in text_files.expand([f"{tmp_path}/*"]):
        assert list(text_files.documents(file, "text", 10)) == _TEXTS


def test_plain_text_is_cut_at_empty_lines_and_loses_none(tmp_path):
    paragraphs = [f"paragraph {i}\nof two lines" for i in range(50)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    found = list(text_files.documents(str(tmp_path / "a.txt"), "text", 200))
    assert 5 < len(found) < 10 and "\n\n".join(found) == "\n\n".join(paragraphs)
    (tmp_path / "empty.txt").write_text("\n\n")
    assert list(text_files.documents(str(tmp_path / "empty.txt"), "text", 200)) == []


def test_globs_cross_folders_and_name_each_file_once(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("x.txt", "a/y.txt", "a/b/z.txt"):
        (tmp_path / name).write_text("text")
    assert len(text_files.expand([f"{tmp_path}/**/*.txt", f"{tmp_path}/x.txt"])) == 3
    with pytest.raises(InputError, match=r"no\.where"):
        text_files.expand(["no.where/*"])


def test_a_file_that_has_changed_is_another(tmp_path, monkeypatch):
    file, found = tmp_path / "a.txt", []
    monkeypatch.setattr(text_files, "_LARGE", 100)
    monkeypatch.setattr(text_files, "_END", 10)
    for content in ("a" * 50, "a" * 49 + "b", "a" * 51, "b" * 500, "b" * 499 + "a", "a" + "b" * 499):
        file.write_text(content)
        os.utime(file, ns=(0, len(found)))  # written within the clock's resolution
        found.append(text_files.digest(str(file)))
    assert len(set(found)) == len(found)


def _raises(path, match, key="text"):
    with pytest.raises(InputError, match=match) as caught:
        list(text_files.documents(str(path), key, 10))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_bad_files_are_named_with_the_row(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(_jsonl(_TEXTS[:2]) + b"{oops\n")
    _raises(tmp_path / "a.jsonl", "row 3 is not a JSON object")
    (tmp_path / "b.jsonl").write_bytes(_jsonl(_TEXTS))
    _raises(tmp_path / "b.jsonl", "row 1 has no text 'body'", key="body")
    (tmp_path / "c.txt").write_bytes(b"good\n\xff\xfe\n")
    _raises(tmp_path / "c.txt", "cannot be read")
    (tmp_path / "d.jsonl.gz").write_bytes(b"not gzip")
    _raises(tmp_path / "d.jsonl.gz", "row 1 cannot be read")
    _zstd(tmp_path / "e.zst", b"some text" * 100)
    (tmp_path / "e.zst").write_bytes((tmp_path / "e.zst").read_bytes()[:-9])
    _raises(tmp_path / "e.zst", "cannot be read")
    (tmp_path / "f.parquet").write_bytes(b"PAR1")
    _raises(tmp_path / "f.parquet", "cannot be read as Parquet")
    (tmp_path / "g.tsv").write_text("inputs\ttargets\na\tb\nonly one\n")
    with pytest.raises(InputError, match="row 2 has 1 cells"):
        list(text_files.rows(str(tmp_path / "g.tsv")))
    with pytest.raises(InputError, match="a table is"):
        list(text_files.rows(str(tmp_path / "c.txt")))


def test_held_out_is_a_share_and_keeps_copies_together():
    drawn = [text_files.held_out(f"document {i}") for i in range(4000)]
    assert 150 < sum(drawn) < 250
    assert drawn[:100] == [text_files.held_out(f"document {i}") for i in range(100)]


def test_overlap_finds_thirteen_words_in_a_row():
    words = [f"w{i}" for i in range(40)]
    passages = overlap.Passages([" ".join(words), "too short to tell"])
    assert len(passages) == 28
    assert f"Before. {' '.join(words[5:18]).upper()}, after" in passages
    assert " ".join(words[5:17]) not in passages
    assert " ".join([*words[5:17], "other", *words[18:30]]) not in passages
    assert "too short to tell" not in passages
    assert "anything" not in overlap.Passages([])
    assert overlap.Passages(["a b"]).key == overlap.Passages([]).key != passages.key
