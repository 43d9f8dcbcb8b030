"""Rows written by hand, stored by the official TFDS builders and read under their names.

`write(data_dir)` needs no network: only the step that downloads and parses is replaced, on the
instance of the builder.
"""

from pathlib import Path
from typing import Any

Row = dict[str, Any]

# Some rows are awkward: nothing between the quotes, unicode, markup, an answer that is not in the
# passage, label -1.
GLUE: dict[str, list[Row]] = {
    "cola": [
        {"sentence": "The cat sat.", "label": 1},
        {"sentence": "Cat the  sat.", "label": 0},
        {"sentence": "", "label": 1},
        {"sentence": "Zoë naïvely ate 🍰 – “twice”.", "label": 0},
    ],
    "sst2": [{"sentence": "a joy ", "label": 1}, {"sentence": "dull", "label": 0}],
    "mrpc": [
        {"sentence1": "He left.", "sentence2": "He went away.", "label": 1},
        {"sentence1": "He left.", "sentence2": "It rained.", "label": 0},
    ],
    "qqp": [
        {"question1": "How old is she?", "question2": "What is her age?", "label": 1},
        {"question1": "Why?", "question2": "", "label": 0},
    ],
    "stsb": [
        {"sentence1": "A man sings.", "sentence2": "A man is singing.", "label": 4.8},
        {"sentence1": "A dog.", "sentence2": "A train.", "label": 0.0},
        {"sentence1": "Two cats.", "sentence2": "Cats.", "label": 3.295},
        {"sentence1": "Tie.", "sentence2": "Tie.", "label": 2.5},
    ],
    "mnli": [
        {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0},
        {"premise": "It rains.", "hypothesis": "Bob is glad.", "label": 1},
        {"premise": "It rains.", "hypothesis": "It is dry.", "label": 2},
    ],
    "qnli": [
        {"question": "Who sat?", "sentence": "The cat sat.", "label": 0},
        {"question": "Who sat?", "sentence": "It rains.", "label": 1},
    ],
    "rte": [
        {"sentence1": "A cat sat.", "sentence2": "An animal sat.", "label": 0},
        {"sentence1": "A cat sat.", "sentence2": "A dog sat.", "label": 1},
    ],
}
SUPER_GLUE: dict[str, list[Row]] = {
    "boolq": [
        {"question": "is the sky blue", "passage": "Sky -- The sky is blue.", "label": 1},
        {"question": "is it", "passage": "", "label": 0},
    ],
    "cb": [{"premise": "She said so.", "hypothesis": "so", "label": label} for label in (0, 1, 2)],
    "copa": [
        {
            "premise": "It rained.",
            "choice1": "Wet.",
            "choice2": "Dry.",
            "question": "effect",
            "label": 0,
        },
        {
            "premise": "He fell.",
            "choice1": "Ice.",
            "choice2": "Sun.",
            "question": "cause",
            "label": 1,
        },
    ],
    "multirc": [
        {
            "paragraph": "<b>Sent 1: </b>Tom ran.<br><b>Sent 2: </b>He won.<br>",
            "question": "Who won?",
            "answer": answer,
            "idx": {"paragraph": 0, "question": question, "answer": number},
            "label": label,
        }
        for question, number, answer, label in [
            (0, 0, "Tom", 1),
            (0, 1, "Ann", 0),
            (1, 2, "Nobody <br> else", 0),
        ]
    ],
    "record": [
        {
            "passage": "Ann met Bob.\n@highlight\nAnn won\n@highlight\nBob lost",
            "query": "@placeholder won.",
            "entities": ["Ann", "Bob"],
            "answers": ["Ann", "ann"],
            "idx": {"passage": 0, "query": 0},
        },
        {
            "passage": 'He said "no"\n@highlight\nEnd',
            "query": "Who is @placeholder?",
            "entities": ["Zoë"],
            "answers": ["not in the passage"],
            "idx": {"passage": 1, "query": 1},
        },
        {
            "passage": "",
            "query": "@placeholder",
            "entities": ["x"],
            "answers": [],
            "idx": {"passage": 2, "query": 2},
        },
    ],
    "rte": [
        {"premise": "A cat sat.", "hypothesis": "An animal sat.", "label": 0},
        {"premise": "A cat sat.", "hypothesis": "A dog sat.", "label": 1},
    ],
    "wic": [
        {
            "word": "bank",
            "sentence1": "River bank.",
            "sentence2": "A bank robbed.",
            "start1": 6,
            "start2": 2,
            "end1": 10,
            "end2": 6,
            "label": label,
        }
        for label in (0, 1)
    ],
    "wsc.fixed": [
        {
            "text": "Mitchell asked Tom if he could lend some money.",
            "span1_text": "Tom",
            "span2_text": "he",
            "span1_index": 2,
            "span2_index": 4,
            "label": 1,
        },
        {
            "text": "Mitchell asked Tom if he could lend some money.",
            "span1_text": "Mitchell",
            "span2_text": "he",
            "span1_index": 0,
            "span2_index": 4,
            "label": 0,
        },
    ],
}
SQUAD: list[Row] = [
    {
        "id": "a",
        "title": "Cats",
        "context": "The cat (Felis catus) sat on 1.5 mats.",
        "question": "How many mats?",
        "answers": {"text": ["1.5", "1.5 mats"], "answer_start": [29, 29]},
    },
    {
        "id": "b",
        "title": "Ünïcode",
        "context": "L’été – “naïve”.",
        "question": "Quoi?",
        "answers": {"text": ["été"], "answer_start": [2]},
    },
    {
        "id": "c",
        "title": "",
        "context": "",
        "question": "?",
        "answers": {"text": ["absent"], "answer_start": [0]},
    },
]
DPR: list[Row] = [
    {
        "sentence": "Bob asked Tom if he can lend some.",
        "pronoun": "he",
        "candidates": ["Bob", "Tom"],
        "label": 1,
    },
    {
        "sentence": "The bees left the flowers, for they had it, they.",
        "pronoun": "they",
        "candidates": ["The bees", "the flowers"],
        "label": 0,
    },
    {
        "sentence": "Zoë told her naïve aunt.",
        "pronoun": "him",
        "candidates": ["Zoë", "aunt"],
        "label": 0,
    },
]
C4 = [
    {"text": f"Page {i} is about naïve cats.\nThey sit on mat {i % 7}.", "url": f"page{i}"}
    for i in range(400)
]

_CONTENT = {"content-length": "1", "content-type": "text", "timestamp": "2019-04-25T00:00:00Z"}


def _unlabelled(row: Row) -> Row:
    return {**row, "label": -1} if "label" in row else row


def _with_index(rows: list[Row], key: str) -> list[Row]:
    return [{key: i, **row} for i, row in enumerate(rows)]


def splits() -> dict[str, dict[str, list[Row]]]:
    """Rows by official name and split."""
    found = {}
    for config, rows in GLUE.items():
        rows = _with_index(rows, "idx")
        held_out = {"validation": rows}
        if config == "mnli":
            held_out = {"validation_matched": rows, "validation_mismatched": rows[1:]}
        found[f"glue/{config}:2.0.0"] = {
            "train": rows,
            **held_out,
            "test": list(map(_unlabelled, rows)),
        }
    for config, rows in SUPER_GLUE.items():
        rows = rows if "idx" in rows[0] else _with_index(rows, "idx")
        found[f"super_glue/{config}:1.0.2"] = {
            "train": rows,
            "validation": rows,
            "test": list(map(_unlabelled, rows)),
        }
    found["squad/v1.1:3.0.0"] = {"train": SQUAD, "validation": SQUAD}
    found["definite_pronoun_resolution:1.1.0"] = {"train": DPR, "test": DPR}
    pages = [{**_CONTENT, **page} for page in C4]
    found["c4/en:3.1.0"] = {"train": pages[:360], "validation": pages[360:]}
    return found


def write(data_dir: Path) -> None:
    """Writes every data set below `data_dir`, where `tfds.load` finds them."""
    import tensorflow_datasets as tfds

    for name, rows in splits().items():
        builder = tfds.builder(name, data_dir=data_dir)
        builder._split_generators = lambda *_, rows=rows: {
            split: enumerate(part) for split, part in rows.items()
        }
        builder.download_and_prepare()


if __name__ == "__main__":
    import sys

    write(Path(sys.argv[1]))
