"""The records of a study in one file."""

import gzip
import io
import tarfile

import pandas as pd
import pytest

import eval as evaluation
from eval.__main__ import main
from eval.data import archive
from tests.eval import run_directories
from train.records import InputError


@pytest.fixture
def study(tmp_path):
    """A study's directory."""
    return run_directories.write_study(tmp_path, study="mine")


def test_every_verb_reads_an_archive_as_it_reads_the_directory(study, tmp_path, capsys):
    out = tmp_path / "kept" / "mine.tar.gz"
    assert main(["archive", str(study), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{out}: " in said and f"{out.stat().st_size:,} bytes, sha256 " in said
    for verb in ("slopes", "compare", "pareto"):
        shown = []
        for path in (study, out):
            assert main([verb, str(path), "--format", "json"]) == 0
            shown.append(capsys.readouterr().out)
        assert shown[0] == shown[1]
    one, other = evaluation.read_study(study), evaluation.read_study(out)
    pd.testing.assert_frame_equal(one.runs, other.runs)
    pd.testing.assert_frame_equal(one.evals, other.evals)


def test_the_same_records_give_the_same_bytes_without_checkpoints(study, tmp_path):
    first, second = tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"
    archive.write(study, first)
    run = next(path for path in sorted(study.iterdir()) if path.is_dir())
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / "weights").write_text("x")
    (study / "worker-0.log").write_text("x")
    archive.write(study, second)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        assert f"mine/{run.name}/config.json" in tar.getnames()


def test_what_is_no_archive_is_one_line(study, tmp_path, capsys):
    bad = tmp_path / "bad.tar.gz"
    bad.write_bytes(b"no archive")
    assert main(["slopes", str(bad)]) == 2
    assert f"{bad}: cannot be unpacked" in capsys.readouterr().err
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    bad.write_bytes(gzip.compress(whole.getvalue()))
    with pytest.raises(InputError, match="cannot be unpacked"):
        archive.opened(bad)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for arguments, said in (
        ([str(tmp_path / "empty"), "--out", "x.tar.gz"], "holds no run"),
        ([str(study), "--out", str(tmp_path / "x.zip")], "an archive ends in .tar.gz"),
        ([str(study), "--out", str(tmp_path / "file" / "x.tar.gz")], "x.tar.gz"),
    ):
        assert main(["archive", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
