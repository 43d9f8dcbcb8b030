"""Makes t5_text.json: what T5's published preprocessors make of the rows of `official`.

It runs in a separate environment, because `t5` needs other versions of seqio and TFDS. Give it a
folder into which `pip download --no-deps t5==0.9.4` was unpacked, and run it where seqio,
TensorFlow and TFDS are installed:

    python -m tests.train.tasks.make_t5_text UNPACKED
"""

import functools
import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path

import tensorflow_datasets as tfds

from tests.train.tasks import official


def _t5(folder: str):
    """Loads only t5.data.preprocessors, with empty modules for babel and gin (not needed)."""
    sys.modules["babel"], gin = types.ModuleType("babel"), types.ModuleType("gin")
    vars(gin).update(
        REQUIRED=object(),
        configurable=lambda *given, **_: given[0] if given else lambda function: function,
    )
    sys.modules["gin"] = gin
    spec = importlib.util.spec_from_file_location(
        "t5_preprocessors", Path(folder) / "t5/data/preprocessors.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _preprocessor(t5, config: str, split: str, labels: list[str]):
    if config == "definite_pronoun_resolution":
        return t5.definite_pronoun_resolution_simple
    if config in ("stsb", "record"):
        return getattr(t5, config)
    if config == "wsc.fixed":
        return functools.partial(t5.wsc_simple, correct_referent_only=split == "train")
    features = {
        "multirc": ("question", "answer", "paragraph"),
        "wic": ("sentence1", "sentence2", "word"),
    }.get(config)
    return functools.partial(
        t5.glue, benchmark_name=config, label_names=labels, feature_names=features
    )


def _row(example) -> dict:
    row = {key: example[key].decode() for key in ("inputs", "targets")}
    if "answers" in example:
        row["answers"] = [answer.decode() for answer in example["answers"]]
    for outer, inner in (("idx/paragraph", "idx/question"), ("idx/passage", "idx/query")):
        if outer in example:
            row["group"] = f"{example[outer]}-{example[inner]}"
    if "label" in example and example["label"] >= 0:
        row["label"] = str(bool(example["label"]))
    return row


def main(folder: str) -> None:
    """Writes the goldens beside this file."""
    t5, found = _t5(folder), {}
    with tempfile.TemporaryDirectory() as data_dir:
        official.write(Path(data_dir))
        for name, splits in official.splits().items():
            if name.startswith("c4"):
                continue
            config = name.split("/")[-1].split(":")[0]
            features = tfds.builder(name, data_dir=data_dir).info.features
            labels = getattr(features["label"], "names", []) if "label" in features else []
            for split in splits:
                function = (
                    t5.squad if config == "v1.1" else _preprocessor(t5, config, split, labels)
                )
                dataset = function(tfds.load(name, split=split, data_dir=data_dir))
                found.setdefault(name, {})[split] = [
                    _row(example) for example in tfds.as_numpy(dataset)
                ]
    text = json.dumps(found, indent=1, ensure_ascii=False)
    Path(__file__).with_name("t5_text.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
