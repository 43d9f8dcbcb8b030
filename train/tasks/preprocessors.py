"""Preprocessors from raw examples to T5's text-to-text form (Raffel et al. 2020, appendix D).

They need TensorFlow. Each takes and returns a `tf.data.Dataset` of examples. Results have the
strings "inputs" and "targets", and what the metrics need besides: "answers" (all correct ones) and
"group" (the question that several examples belong to). An example with "only" belongs to that split
alone ("train" or "validation"; "" for both).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Example = dict[str, Any]
Preprocessor = Callable[[tf.data.Dataset], tf.data.Dataset]

NO_LABEL = "<unk>"  # the target of unlabelled rows (label -1 of test splits)


def per_example(function: Callable[[Example], Example]) -> Preprocessor:
    """A preprocessor that maps examples one by one."""

    @functools.wraps(function)
    def preprocess(dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE)

    return preprocess


def prompt(
    prefix: str, features: Sequence[str], target: str = "label", labels: Sequence[str] = ()
) -> Preprocessor:
    """A preprocessor to "<prefix> <feature>: <its text> <feature>: <its text>".

    Args:
      prefix: the name of the task; may be empty.
      features: in the order in which they are shown, under their own names.
      target: the feature to answer: a label number, a text, or a list of texts of which the first
        is the target.
      labels: the texts of label numbers.
    """

    @per_example
    def to_text(example: Example) -> Example:
        parts = [prefix] if prefix else []
        for feature in features:
            parts += [f"{feature}:", example[feature]]
        answer = example[target]
        rest = {}
        if labels:
            answer = _label(answer, labels)
        elif answer.shape.rank:
            rest = {"answers": answer}
            answer = answer[0]
        return {"inputs": tf.strings.join(parts, " "), "targets": answer, **rest}

    return to_text


@per_example
def stsb(example: Example) -> Example:
    """Similarity of two sentences, rounded to a multiple of 0.2 and written with one decimal."""
    score = tf.as_string(tf.round(example["label"] * 5) / 5, precision=1)
    parts = ["stsb sentence1:", example["sentence1"], "sentence2:", example["sentence2"]]
    return {"inputs": tf.strings.join(parts, " "), "targets": score}


@per_example
def multirc(example: Example) -> Example:
    """Whether an answer to a question about a paragraph is right; removes HTML from paragraphs."""
    parts = [
        "multirc question:",
        example["question"],
        "answer:",
        example["answer"],
        "paragraph:",
        example["paragraph"],
    ]
    text = tf.strings.regex_replace(tf.strings.join(parts, " "), "<br>", " ")
    index = example["idx"]
    return {
        "inputs": tf.strings.regex_replace(text, "</?b>", ""),
        "targets": _label(example["label"], ("False", "True")),
        "group": tf.strings.join(
            [tf.as_string(index["paragraph"]), tf.as_string(index["question"])], "-"
        ),
    }


def record(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Which entity fills the blank of a query about a passage.

    In training there is one example for each right answer. Highlights of a passage become
    sentences: a full stop is put before one if the text before it has no end of sentence.
    """

    def expand(example: Example) -> tf.data.Dataset:
        passage = tf.strings.regex_replace(example["passage"], "([.?!\"'])\n@highlight\n", r"\1 ")
        passage = tf.strings.regex_replace(passage, "\n@highlight\n", ". ")
        entities = tf.strings.reduce_join(example["entities"], separator=", ")
        parts = ["record query:", example["query"], "entities:", entities, "passage:", passage]
        answers, index = example["answers"], example["idx"]
        common = {
            "inputs": tf.strings.join(parts, " "),
            "answers": answers,
            "group": tf.strings.join(
                [tf.as_string(index["passage"]), tf.as_string(index["query"])], "-"
            ),
        }
        targets = tf.cond(tf.size(answers) > 0, lambda: answers, lambda: tf.constant([NO_LABEL]))
        numbered = tf.data.Dataset.from_tensor_slices(targets).enumerate()
        return numbered.map(
            lambda n, target: {**common, "targets": target, "only": tf.where(n > 0, "train", "")}
        )

    return dataset.flat_map(expand)


@per_example
def squad(example: Example) -> Example:
    """A question about a context; every punctuation mark gets spaces around it, in answers too."""
    question, context, answers = (
        _spaced(text)
        for text in (example["question"], example["context"], example["answers"]["text"])
    )
    text = tf.strings.join(["question:", question, "context:", context], " ")
    answers = tf.cond(tf.size(answers) > 0, lambda: answers, lambda: tf.constant([""]))
    return {
        "inputs": tf.strings.regex_replace(text, r"\s+", " "),
        "targets": answers[0],
        "answers": answers,
    }


@per_example
def wsc(example: Example) -> Example:
    """A Winograd schema: the pronoun is between asterisks, the target is the noun it may mean.

    If the pronoun does not mean that noun, there is no correct target to learn, so such an example
    is only for validation.
    """
    place = [example["text"], example["span2_text"], example["span2_index"]]
    marked = tf.ensure_shape(tf.numpy_function(_mark_pronoun, place, tf.string), [])
    return {
        "inputs": tf.strings.join(["wsc:", marked], " "),
        "targets": example["span1_text"],
        "label": _label(example["label"], ("False", "True")),
        "only": tf.where(example["label"] == 1, "", "validation"),
    }


@per_example
def dpr(example: Example) -> Example:
    """A sentence with a pronoun and what it means, in the form of `wsc`.

    The first occurrence of the pronoun is marked.
    """
    pattern = tf.strings.join([" (", example["pronoun"], r")( |\.|,)"])
    marked = tf.strings.regex_replace(
        example["sentence"], pattern, r" *\1*\2", replace_global=False
    )
    return {
        "inputs": tf.strings.join(["wsc:", marked], " "),
        "targets": example["candidates"][example["label"]],
    }


def _mark_pronoun(text: bytes, pronoun: bytes, index: int) -> bytes:
    """Puts asterisks around the word at `index`, or around the nearest one that is the pronoun.

    The latter is needed because some indices are wrong. Punctuation attached to the pronoun is
    separated, as it is in most of these texts.
    """
    words, wanted = text.split(b" "), pronoun.lower()
    places = [
        i
        for i, word in enumerate(words)
        if word.lower().rstrip(b".,;:!?\"'") == wanted or word.lower() == wanted
    ]
    if not places:
        raise ValueError(f"wsc: {pronoun.decode()!r} is not a word of {text.decode()!r}")
    place = min(places, key=lambda i: abs(i - index))
    tail = words[place][len(pronoun) :]
    words[place] = b"*" + pronoun + b"*" + (b" " + tail if tail else b"")
    return b" ".join(words)


def _label(number: tf.Tensor, labels: Sequence[str]) -> tf.Tensor:
    """The label's text; NO_LABEL for -1."""
    return tf.gather(tf.constant([NO_LABEL, *labels]), number + 1)


def _spaced(text: tf.Tensor) -> tf.Tensor:
    """The text with spaces around every punctuation mark and no double spaces."""
    return tf.strings.regex_replace(
        tf.strings.regex_replace(text, "([[:punct:]])", r" \1 "), r"\s+", " "
    )


@per_example
def text_only(example: Example) -> Example:
    """Pretraining text: the feature "text" becomes the target."""
    return {"targets": example["text"]}
