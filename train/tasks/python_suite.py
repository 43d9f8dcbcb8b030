"""The offline downstream suite: five labelled tasks from the embedded Python text.

There is one for each family of tasks in the study:

    python_package     single-sentence classification: which package is this docstring from
    python_signature   paraphrase, match: does this docstring describe this signature
    python_follows     entailment-like: does sentence B follow sentence A, or A follow B
    python_shuffled    acceptability: is this sentence intact, or are letters in its words shuffled
    python_answer      extractive question answering: a question about a signature

Examples of a split come from the modules of that split. A text that occurs in training is never a
validation example, and the labels are balanced. Nothing is random: the coin of an example is a hash
of its own text.
"""

import ast
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from train.data.text.python_text import TOP_LEVEL, Entry, PythonText
from train.records import Row

VERSION = 2  # part of a corpus's key; increase it whenever the examples change
MAX_TRAIN, MAX_VALIDATION = 4000, 600
_MAX_CHARACTERS = 150  # about 50 tokens at a vocabulary of 2,000 pieces
_MIN_CHARACTERS = 30
_NUM_PACKAGES = 5
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'`(])")


def make(text: PythonText) -> dict[str, dict[str, list[Row]]]:
    """Builds all examples.

    Args:
      text: the embedded corpus.

    Returns:
      For each task and split, examples in a random but fixed order: the features that its
      preprocessor names, and "label" (a word) or "answers" (a list).
    """
    suite = {}
    seen = {
        _bag(sentence) for entry in text.train.entries for sentence in _sentences(entry.docstring)
    }
    for task, build in _BUILDERS.items():
        train, validation = build(text.train.entries), build(text.validation.entries)
        known = seen | {_bag(value) for example in train for value in _prose(example)}
        validation = [
            example
            for example in validation
            if not any(_bag(value) in known for value in _prose(example))
        ]
        if task == "python_package":
            kept = _common_labels(train, validation)
            train, validation = (
                [e for e in part if e["label"] in kept] for part in (train, validation)
            )
        suite[task] = {
            "train": _choose(train, MAX_TRAIN),
            "validation": _choose(validation, MAX_VALIDATION, even=True),
        }
    return suite


def _package(entries: Iterable[Entry]) -> list[Row]:
    """Pieces of docstrings that do not contain the name of their package."""
    examples = []
    for entry in entries:
        for piece in _pieces(_flat(entry.docstring)):
            if entry.package != TOP_LEVEL and entry.package not in piece.lower():
                examples.append({"docstring": piece, "label": entry.package})
    return _unique(examples)


def _signature(entries: Iterable[Entry]) -> list[Row]:
    """Functions with the first sentence of their docstring, or of another in their package."""
    packages = defaultdict(list)
    for entry in entries:
        for sentence in _sentences(entry.docstring)[:1]:
            packages[entry.package].append((sentence, entry))
    examples = []
    for members in packages.values():
        members.sort(key=lambda member: (_hash(member[0]), member[1].name))
        for i, (sentence, entry) in enumerate(members):
            if entry.arguments is None or len(entry.signature) + len(sentence) > _MAX_CHARACTERS:
                continue
            other, _ = members[(i + 1 + len(members) // 2) % len(members)]
            match = _coin(entry.signature + sentence) or other == sentence
            shown = sentence if match else other
            examples.append({"signature": entry.signature, "docstring": shown, "label": str(match)})
    return _unique(examples)


def _follows(entries: Iterable[Entry]) -> list[Row]:
    """The first two sentences of a docstring, in order or swapped."""
    examples = []
    for entry in entries:
        sentences = _sentences(entry.docstring)[:2]
        if len(sentences) == 2 and sum(map(len, sentences)) <= _MAX_CHARACTERS:
            follows = _coin("".join(sentences))
            first, second = sentences if follows else reversed(sentences)
            examples.append({"sentence1": first, "sentence2": second, "label": str(follows)})
    return _unique(examples)


def _shuffled(entries: Iterable[Entry]) -> list[Row]:
    """Sentences, half of them with the letters of every plain word in a different order."""
    examples = []
    for entry in entries:
        for sentence in _sentences(entry.docstring):
            intact = _coin(sentence)
            words = sentence.split()
            plain = [i for i, word in enumerate(words) if re.fullmatch("[a-z]{3,}", word)]
            if len(plain) < 4:
                continue
            for i in [] if intact else plain:
                drawn = sorted(
                    (_hash(f"{i} {n} {sentence}"), letter) for n, letter in enumerate(words[i])
                )
                words[i] = "".join(letter for _, letter in drawn)
            examples.append({"sentence": " ".join(words), "label": str(intact)})
    return _unique(examples)


def _answer(entries: Iterable[Entry]) -> list[Row]:
    """Questions about functions whose answer is a part of the signature."""
    examples = []
    for entry in entries:
        arguments = entry.arguments
        if arguments is None or len(entry.signature) > _MAX_CHARACTERS // 2:
            continue
        positional = [*arguments.posonlyargs, *arguments.args]
        with_default = positional[len(positional) - len(arguments.defaults) :]
        questions = [
            (f"what is the default of {argument.arg}?", ast.unparse(value))
            for argument, value in zip(with_default, arguments.defaults, strict=True)
            if ast.unparse(value) != "None"  # nearly half of all defaults
        ]
        if len(positional) > 1:
            questions += [
                ("what is the first argument?", positional[0].arg),
                ("what is the last argument?", positional[-1].arg),
            ]
        examples += [
            {"question": q, "context": entry.signature, "answers": [a]} for q, a in questions
        ]
    return _unique(examples)


_BUILDERS: dict[str, Callable[[Iterable[Entry]], list[Row]]] = {
    "python_package": _package,
    "python_signature": _signature,
    "python_follows": _follows,
    "python_shuffled": _shuffled,
    "python_answer": _answer,
}


def _flat(docstring: str) -> str:
    return " ".join(docstring.split())


def _sentences(docstring: str) -> list[str]:
    """Sentences at the start of a docstring, up to the first line that is not prose."""
    prose = re.split(r"\n\s*(?:>>>|[-*+=:|#@]|\w+\(|\w+\s*[:=]\s)|::", docstring)[0]
    paragraphs = (_flat(paragraph) for paragraph in prose.split("\n\n"))
    found = [s for paragraph in paragraphs for s in _SENTENCE_END.split(paragraph)]
    return [s for s in found if _MIN_CHARACTERS <= len(s) <= _MAX_CHARACTERS]


def _pieces(flat: str) -> list[str]:
    """Runs of whole words of at most _MAX_CHARACTERS."""
    pieces = re.findall(rf"\S.{{0,{_MAX_CHARACTERS - 1}}}(?!\S)", flat)
    return [piece for piece in pieces if len(piece) >= _MIN_CHARACTERS]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _coin(text: str) -> bool:
    return _hash(text)[0] % 2 == 0


def _prose(example: Row) -> list[str]:
    """The texts that must not be in both splits.

    A signature may be, with another docstring.
    """
    return [
        value
        for key, value in example.items()
        if key not in ("label", "answers", "question", "signature")
    ]


def _bag(text: str) -> str:
    """The words of a text in alphabetical order; independent of their order and of punctuation."""
    return " ".join(sorted(re.findall(r"\w+", text.lower())))


def _key(example: Row) -> str:
    """The texts of an example, without its label."""
    return " | ".join(
        sorted(_bag(value) for key, value in example.items() if key not in ("label", "answers"))
    )


def _unique(examples: Iterable[Row]) -> list[Row]:
    return list({_key(example): example for example in examples}.values())


def _common_labels(train: list[Row], validation: list[Row]) -> set[str]:
    """The labels with the most validation examples, of those as frequent in training."""
    known, held_out = (Counter(e["label"] for e in part) for part in (train, validation))
    ranked = sorted((count, label) for label, count in held_out.items() if known[label] >= count)
    return {label for _, label in ranked[-_NUM_PACKAGES:]}


def _choose(examples: list[Row], most: int, *, even: bool = False) -> list[Row]:
    """At most `most` examples in hashed order, each label up to its share.

    `even` gives each label as many as the rarest has.
    """
    groups = defaultdict(list)
    for example in sorted(examples, key=lambda example: _hash(_key(example))):
        groups[example.get("label")].append(example)
    share = most // max(1, len(groups))
    each = min([share, *map(len, groups.values())]) if even else share
    kept = [example for members in groups.values() for example in members[:each]]
    return sorted(kept, key=lambda example: _hash(_key(example)))
