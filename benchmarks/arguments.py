"""Command-line arguments that several scripts share."""

import argparse
from pathlib import Path

from train.data.corpus import open_corpus
from train.records import InputError


def add_corpus(parser: argparse.ArgumentParser) -> None:
    """`--corpus`, a path; without a corpus there the script ends with exit code 2."""
    # argparse also checks the default, because it is text.
    parser.add_argument(
        "--corpus", type=_corpus, default="corpora/python", help="(default: corpora/python)"
    )


def _corpus(text: str) -> Path:
    try:
        return open_corpus(text).path
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
