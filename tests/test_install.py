"""What the installation page, the Dockerfile and the Makefile promise."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from train.__main__ import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "install.md").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_dockerfile_has_no_fault():
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_image_leaves_out_what_runs_write():
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    left_out = set((ROOT / ".dockerignore").read_text().split())
    assert {"runs", "reports", "corpora", ".venv", ".cache", "build"} <= left_out & ignored


def test_every_extra_of_the_page_exists_and_is_explained():
    named = set(re.findall(r"\[(\w+)\]'|EXTRA=\[(\w+)\]", PAGE + (ROOT / "Dockerfile").read_text()))
    assert {name for pair in named for name in pair if name} == {"cuda", "tpu"}
    table = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`.*?) \|", PAGE, re.M))))
    assert table == set(EXTRAS) - {"parity"}  # that one has an environment of its own


def test_every_target_of_the_page_exists():
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`?make (\w+)", PAGE)) <= targets


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_a_study_for_accelerators_says_at_once_that_there_is_none(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["study", "gpu"]) == 2
    said = capsys.readouterr().err
    assert "study 'gpu' is for an accelerator, and jax sees only the CPU" in said
    assert not (tmp_path / "runs").exists()
