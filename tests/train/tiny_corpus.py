"""A corpus for the trainer's tests, prepared in a second.

It has sentences of a small grammar and one task.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from train.data import shards
from train.data.corpus import FORMAT, INDEX
from train.data.text import vocabulary
from train.data.text.vocabulary import EOS_ID, Vocabulary

_SUBJECTS = ("cat", "dog", "bird", "fish")
_VERBS = ("sees", "likes", "follows")


def write_corpus(path: Path, vocab_size: int = 296, sentinels: int = 16) -> Path:
    """Writes the corpus and returns its directory."""
    random = np.random.default_rng(0)
    sentences = [
        f"the {random.choice(_SUBJECTS)} {random.choice(_VERBS)} the {random.choice(_SUBJECTS)} ."
        for _ in range(6000)
    ]
    model = vocabulary.train(sentences, vocab_size, sentinels)
    files = {"vocabulary.model": shards.write_bytes(path / "vocabulary.model", model)}
    words = Vocabulary(path / "vocabulary.model", sentinels)

    pretrain = {}
    for split, part in (("train", sentences[:5000]), ("validation", sentences[5000:])):
        tokens = np.array([i for ids in words.encode(part) for i in (*ids, EOS_ID)], np.uint16)
        name = f"pretrain/{split}-00000.npy"
        files[name] = shards.write_array(path / name, tokens)
        pretrain[split] = {
            "shards": [name],
            "tokens": len(tokens),
            "text_bytes": sum(map(len, part)),
        }

    examples = {}
    for split, part in (("train", sentences[:400]), ("validation", sentences[5000:5040])):
        targets = [sentence.split()[1] for sentence in part]
        for feature, texts in (("inputs", part), ("targets", targets)):
            ids = [[*ids, EOS_ID] for ids in words.encode(texts)]
            stem = f"tasks/python_subject/{split}.{feature}"
            files[f"{stem}.npy"] = shards.write_array(
                path / f"{stem}.npy", np.array(sum(ids, []), np.uint16)
            )
            lengths = np.array([len(row) for row in ids], np.int32)
            files[f"{stem}.lengths.npy"] = shards.write_array(path / f"{stem}.lengths.npy", lengths)
        name = f"tasks/python_subject/{split}.references.jsonl"
        content = "".join(json.dumps({"target": target}) + "\n" for target in targets)
        files[name] = shards.write_bytes(path / name, content.encode())
        examples[split] = len(part)

    index = {
        "format": FORMAT,
        "name": "tiny",
        "fingerprint": hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(),
        "vocab_size": vocab_size,
        "num_sentinels": sentinels,
        "pretrain": pretrain,
        "tasks": {
            "python_subject": {
                "metrics": ["accuracy"],
                "labels": list(_SUBJECTS),
                "examples": examples,
                "majority_class": 30.0,
            }
        },
        "files": files,
    }
    shards.write_bytes(path / INDEX, json.dumps(index).encode())
    return path
