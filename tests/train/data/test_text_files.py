import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from train.data.text import overlap, text_files
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


def test_a_folder_that_links_to_itself_is_read_once(tmp_path):
    """Two such links would make 2^40 paths."""
    (tmp_path / "a[1]/.hidden").mkdir(parents=True)
    for name in ("x.txt", "a[1]/y.txt", "a[1]/.hidden/z.txt"):
        (tmp_path / name).write_text("text")
    for link in ("loop", "again", "a[1]/up"):
        (tmp_path / link).symlink_to(tmp_path)
    (tmp_path / "other.txt").symlink_to(tmp_path / "x.txt")
    both = [f"{tmp_path}/a[1]/y.txt", f"{tmp_path}/x.txt"]
    for pattern in ("**/*.txt", "**", "**/**/*.txt", "loop/**/*.txt"):
        found = text_files.expand([f"{tmp_path}/{pattern}"])
        assert sorted(map(os.path.realpath, found)) == both, pattern
    assert text_files.expand([f"{tmp_path}/**/*.txt"]) == both
    assert text_files.expand([f"{tmp_path}/*.txt", f"{tmp_path}/loop/x.txt"]) == [
        f"{tmp_path}/x.txt"
    ]


def test_a_path_that_exists_is_itself_and_no_pattern(tmp_path):
    for name in ("a[1].txt", "a1.txt", "b[1]/x.txt", "b1/x.txt", "c*.txt", "cd.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    for pattern, expected in {
        "a[1].txt": ["a[1].txt"],
        "a[0-9].txt": ["a1.txt"],
        "b[1]/*.txt": ["b[1]/x.txt"],
        "b[1]/**": ["b[1]/x.txt"],
        "b[0-9]/*.txt": ["b1/x.txt"],
        "c*.txt": ["c*.txt"],
    }.items():
        assert text_files.expand([f"{tmp_path}/{pattern}"]) == [
            f"{tmp_path}/{name}" for name in expected
        ]
    with pytest.raises(InputError, match=r"b1' is a folder; '.*b1/\*\*' takes its files"):
        text_files.expand([f"{tmp_path}/b1"])


def test_a_file_that_has_changed_anywhere_is_another(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_LARGE", 100)
    file, kept, found = tmp_path / "a.txt", tmp_path / "digests.json", []
    for content in (
        "a" * 50,
        "a" * 49 + "b",
        "a" * 51,
        "b" * 500,
        "b" * 499 + "a",
        "b" * 250 + "a" + "b" * 249,
    ):
        file.write_text(content)
        os.utime(file, ns=(0, 0))  # as a copy that keeps the times
        found.append(text_files.digest(str(file), kept))
        text_files._digest.cache_clear()
        assert text_files.digest(str(file)) == found[-1]
    assert len(set(found)) == len(found)


def test_a_large_files_fingerprint_is_kept_while_it_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "_LARGE", 100)
    file, kept = tmp_path / "a.txt", tmp_path / "digests.json"
    file.write_text("a" * 200)
    found = text_files.digest(str(file), kept)
    monkeypatch.setattr(text_files, "_digest", None)  # fails if the file is read again
    assert text_files.digest(str(file), kept) == found
    kept.write_text("{")
    monkeypatch.undo()
    assert text_files.digest(str(file), kept) == found


def _raises(path, match, key="text"):
    with pytest.raises(InputError, match=match) as caught:
        list(text_files.documents(str(path), key, 10))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_rows_without_text_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(_jsonl(_TEXTS))
    _raises(
        tmp_path / "a.jsonl", r"row 1 has no text 'body'; it has text, n \(--text-key", key="body"
    )
    _raises(tmp_path / "a.jsonl", "row 1: 'n' is no text: 1", key="n")
    (tmp_path / "b.jsonl").write_bytes(_jsonl(_TEXTS) + b'{"text": null}')
    _raises(tmp_path / "b.jsonl", "row 4: 'text' is no text: null")


def test_replaced_characters_and_empty_rows_are_counted(tmp_path):
    lost = text_files.Lost()
    (tmp_path / "a.jsonl").write_text(
        '{"text": "half \\ud83d"}\n{"text": " "}\n{"text": "\\u0000\\udc00"}\n'
    )
    assert list(text_files.documents(str(tmp_path / "a.jsonl"), "text", 9, lost)) == [
        "half \ufffd",
        "\ufffd\ufffd",
    ]
    (tmp_path / "a.txt").write_text("a stray \0 in text\n")
    assert list(text_files.documents(str(tmp_path / "a.txt"), "text", 99, lost)) == [
        "a stray \ufffd in text"
    ]
    assert lost == {"replaced": 4, "empty": 1}


def test_text_without_empty_lines_is_cut_at_the_ends_of_lines(tmp_path):
    lines = [f"line {i} of a text without an empty line" for i in range(200)]
    for end in ("\n", "\r\n"):
        (tmp_path / "lines.txt").write_text(end.join(lines), newline="")
        lost = text_files.Lost()
        found = list(text_files.documents(str(tmp_path / "lines.txt"), "text", 200, lost))
        assert "\n".join(found) == "\n".join(lines) and lost["cut"] == len(found) - 1
        assert all(200 <= len(document) <= 400 for document in found[:-1])


def test_one_endless_line_is_cut_between_words(tmp_path):
    words, characters = " ".join(f"word{i}" for i in range(5000)), "字" * 9000
    for text, joined in ((words, " "), (characters, "")):
        (tmp_path / "line.txt").write_text(text)
        lost = text_files.Lost()
        found = list(text_files.documents(str(tmp_path / "line.txt"), "text", 500, lost))
        assert lost["cut"] == len(found) - 1
        assert joined.join(document.strip() for document in found) == text
        assert len(found) > 5 and max(map(len, found)) <= 2000


def _survey(files, key="", size=500, sample=10**9, longest=20_000):
    return text_files.Survey.of([str(file) for file in files], key, size, sample, longest)


def test_a_small_text_always_has_text_for_validation(tmp_path):
    for number in range(30):
        file = tmp_path / f"{number}.txt"
        file.write_text("".join(f"{number} {i} {'word ' * 100}\n" for i in range(2 + number % 3)))
        found = _survey([file])
        documents = list(text_files.documents(str(file), "text", 500))
        held = [document for document in documents if text_files.held_out(document, found.share)]
        assert (
            1 <= len(held) == found.counts["held_out"] < found.counts["documents"] == len(documents)
        )
        assert sorted(found.sample) == sorted(set(documents) - set(held))
    (tmp_path / "many.txt").write_text("\n\n".join(f"{i} {'word ' * 100}" for i in range(1000)))
    assert _survey([tmp_path / "many.txt"]).share == text_files.VALIDATION_SHARE


@pytest.mark.parametrize(
    ("text", "what"), [("", "no text"), ("one short line", "only one document")]
)
def test_text_that_cannot_be_split_is_refused_before_the_work(tmp_path, text, what):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(
        InputError, match=f"a.txt: there is {what}; at least two that differ are needed"
    ):
        _survey([tmp_path / "a.txt"])


def test_the_key_of_a_column_is_never_ignored(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(_jsonl(_TEXTS))
    (tmp_path / "b.txt").write_text("\n\n".join(["plain text " * 60] * 3 + ["more"]))
    with pytest.raises(
        InputError, match=r"text_key = 'text': .*b.txt is plain text, which has no columns"
    ):
        text_files.check_key([str(tmp_path / "a.jsonl"), str(tmp_path / "b.txt")], "text")
    text_files.check_key([str(tmp_path / "a.jsonl")], "text")
    text_files.check_key([str(tmp_path / "b.txt")], "")
    (told,) = _survey([tmp_path / "a.jsonl", tmp_path / "b.txt"]).said(500)
    assert told.startswith("text: files: 1 of JSON lines, 1 of plain text; ")


def test_a_vocabularys_sample_is_drawn_over_all_files(tmp_path):
    """English comes first in the order of file names and in the second file; half is Russian."""
    english, russian = (
        [f"{word} {i}" * 9 for i in range(400)] for word in ("some words", "иные слова")
    )
    (tmp_path / "a.jsonl").write_bytes(_jsonl(english))
    (tmp_path / "z.jsonl").write_bytes(_jsonl([*english[:20], *russian]))
    found = _survey(sorted(tmp_path.iterdir()), sample=10_000)
    share = sum(len(text) for text in found.sample if "слова" in text) / sum(map(len, found.sample))
    assert 0.35 < share < 0.65 and 9_000 < sum(map(len, found.sample)) < 10_200
    assert not any(text_files.held_out(text) for text in found.sample)
    assert _survey(sorted(tmp_path.iterdir(), reverse=True), sample=10_000).sample == found.sample
    (tmp_path / "long.jsonl").write_bytes(_jsonl(["a" * 50_000 + "b" * 50_000, "c" * 10]))
    starts = {
        text[:1] + text[-1:] for text in _survey([tmp_path / "long.jsonl"], longest=1000).sample
    }
    assert (
        all(len(text) <= 1000 for text in _survey([tmp_path / "long.jsonl"], longest=1000).sample)
        and starts
    )


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


def test_overlap_finds_text_without_spaces():
    """Overlap is found by characters, because a whole sentence counts as one word."""
    chinese = (
        "机器学习模型的规模与下游任务的表现之间的关系取决于架构的归纳偏置，而不仅仅取决于参数数量。"
    )
    japanese = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
    thai = "การเรียนรู้ของเครื่องเป็นสาขาหนึ่งของปัญญาประดิษฐ์ที่น่าสนใจ"
    passages = overlap.Passages([chinese, japanese, thai])
    for text in (chinese, japanese, thai):
        assert f"前文。{text}后文。" in passages
        assert text[8:40] in passages and text[:10] + "異" + text[20:30] not in passages
    assert (
        "这是另一段完全不同的文字，它没有引用上面的任何句子，所以应当保留在训练数据里面。"
        not in passages
    )
    mixed = overlap.Passages(
        ["使用 GPU 训练 transformer 模型需要很多显存和时间以及良好的数据处理流程"]
    )
    assert "我们使用GPU训练Transformer模型需要很多显存和时间以及良好的数据处理流程。" in mixed
    english = " ".join(f"w{i}" for i in range(40))
    assert len(overlap.Passages([english])) == 28, (
        "one character of another script more changes nothing"
    )
    assert len(overlap.Passages([english + " 字"])) == 29
