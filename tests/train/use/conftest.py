"""Finished runs that the tests of this folder share."""

import dataclasses
from pathlib import Path

import pytest

from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train.data.corpus import open_corpus
from train.run import cell
from train.study.config import RunConfig


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A folder with corpora/ and runs/, and a finished run of each family."""
    root = tmp_path_factory.mktemp("place")
    corpus = open_corpus(write_corpus(root / "corpora" / "tiny"))
    stage = dataclasses.replace(tiny_study.STAGE, eval_every=0)
    both = tiny_study.run("transformer")
    plain = dataclasses.replace(stage, objective="causal_lm", target_length=40)
    runs = {
        "both": dataclasses.replace(both, pretrain=stage, finetune=stage),
        "gated": dataclasses.replace(
            tiny_study.run("glu"),
            pretrain=dataclasses.replace(stage, steps=1),
            finetune=None,
        ),
        "other": dataclasses.replace(
            tiny_study.run("universal"),
            pretrain=dataclasses.replace(stage, steps=1),
            finetune=None,
        ),
        "tuned": RunConfig(
            "llama",
            "nano-NL1",
            family="decoder_only",
            pretrain=dataclasses.replace(stage, objective="prefix_lm"),
            finetune=stage,
        ),
        "plain": RunConfig(
            "llama", "nano-NL1", family="decoder_only", pretrain=plain, finetune=None
        ),
    }
    for name, config in runs.items():
        cell.run_cell(config, corpus, root / "runs" / "study" / name, quiet=True)
    return root


@pytest.fixture(scope="session")
def tiny_vocabulary(tmp_path_factory) -> Path:
    """A SentencePiece model in T5's layout."""
    corpus = write_corpus(tmp_path_factory.mktemp("vocabulary") / "tiny")
    return corpus / "vocabulary.model"
