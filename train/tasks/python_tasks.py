"""The embedded corpus and its offline suite as seqio tasks."""

from train.data.text.python_text import PythonText
from train.tasks import preprocessors, python_suite, seqio_tasks

_PROMPTS = {
    "python_package": preprocessors.prompt("package", ["docstring"]),
    "python_signature": preprocessors.prompt("match", ["signature", "docstring"]),
    "python_follows": preprocessors.prompt("order", ["sentence1", "sentence2"]),
    "python_shuffled": preprocessors.prompt("shuffled", ["sentence"]),
    "python_answer": preprocessors.prompt("", ["question", "context"], target="answers"),
}


def pretraining(text: PythonText) -> seqio_tasks.Definition:
    """The embedded text as a task whose targets are documents, each with the part it belongs to."""
    documents = {
        split: [
            {"targets": doc, "part": part} for doc, part in text.split(split).documents().items()
        ]
        for split in ("train", "validation")
    }
    return seqio_tasks.Definition("python", seqio_tasks.in_memory(documents), ())


def downstream(text: PythonText) -> list[seqio_tasks.Definition]:
    """The five tasks of the offline suite."""
    definitions = []
    for name, examples in python_suite.make(text).items():
        labels = tuple(
            sorted({example["label"] for example in examples["train"] if "label" in example})
        )
        metrics = ("accuracy",) if labels else ("squad",)
        source = seqio_tasks.in_memory(examples)
        definitions.append(seqio_tasks.Definition(name, source, (_PROMPTS[name],), metrics, labels))
    return definitions
