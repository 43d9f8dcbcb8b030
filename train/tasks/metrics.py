"""Metrics of the downstream tasks, in percent, with standard errors.

Uses only numpy and the standard library. Each metric takes predicted texts, references (one object
per example: "target", and "answers" or "group" if the metric needs them) and the task's labels, and
returns named scores. A prediction that is not one of the labels is wrong.

If a metric is a mean (over examples or groups of examples), its standard error is that of a mean.
Otherwise it is the jackknife's, which is deterministic and works for every metric.
"""

import collections
import dataclasses
import math
import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

References = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Score:
    """A metric's value and standard error, both in percent, over n examples (or groups)."""

    value: float
    stderr: float
    n: int


Metric = Callable[[Sequence[str], References, Sequence[str]], dict[str, Score]]


def accuracy(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> dict[str, Score]:
    """Share of predictions that equal the target."""
    right = [p.strip() == r["target"].strip() for p, r in zip(predictions, references, strict=True)]
    return {"accuracy": _mean(right)}


def f1(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> dict[str, Score]:
    """Binary F1 of the second label."""
    return {"f1": _on_confusion(_binary_f1, *_classes(predictions, references, labels), 2)}


def macro_f1(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> dict[str, Score]:
    """Unweighted mean of each label's F1 (SuperGLUE CB)."""
    return {
        "macro_f1": _on_confusion(
            _macro_f1, *_classes(predictions, references, labels), len(labels)
        )
    }


def matthews(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> dict[str, Score]:
    """Matthews correlation coefficient (GLUE CoLA); 0 if undefined."""
    return {
        "matthews": _on_confusion(
            _matthews, *_classes(predictions, references, labels), len(labels)
        )
    }


def pearson(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> dict[str, Score]:
    """Pearson correlation of predicted and true numbers (GLUE STS-B)."""
    return {"pearson": _correlation(*_numbers(predictions, references))}


def spearman(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> dict[str, Score]:
    """Spearman correlation of predicted and true numbers: Pearson's of ranks, ties averaged."""
    x, y = _numbers(predictions, references)
    return {"spearman": _correlation(ranks(x), ranks(y))}


def squad(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> dict[str, Score]:
    """Exact match and token F1 after SQuAD's normalisation, best over the answers (SQuAD, ReCoRD).

    Rows of one "group" are one question (ReCoRD's training form repeats a question for each
    answer); only the first row counts.
    """
    first: dict[Any, int] = {}
    for i, reference in enumerate(references):
        first.setdefault(reference.get("group", i), i)
    exact, overlap = [], []
    for i in first.values():
        answers = references[i]["answers"] or [""]
        exact.append(max(exact_match(predictions[i], answer) for answer in answers))
        overlap.append(max(token_f1(predictions[i], answer) for answer in answers))
    return {"em": _mean(exact), "f1": _mean(overlap)}


def multirc(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> dict[str, Score]:
    """F1 over answer options, and the share of questions with all options right (MultiRC).

    A question is a "group".
    """
    truth, guess = _classes(predictions, references, labels)
    groups = np.unique([reference["group"] for reference in references], return_inverse=True)[1]
    wrong = np.bincount(groups, weights=truth != guess)
    confusions = np.zeros((len(wrong), 2, 2))
    np.add.at(confusions, (groups, truth, _as_binary(truth, guess)), 1)
    total = confusions.sum(axis=0)
    left_out = np.array([_binary_f1(total - confusion) for confusion in confusions])
    return {
        "f1a": Score(
            100 * _binary_f1(total), 100 * _jackknife(left_out, np.ones(len(left_out))), len(truth)
        ),
        "em": _mean(wrong == 0),
    }


def mnli(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> dict[str, Score]:
    """Accuracy on the matched and the mismatched validation set; the headline is their mean.

    The set of an example is its "source".
    """
    right = np.array(
        [p.strip() == r["target"].strip() for p, r in zip(predictions, references, strict=True)]
    )
    source = np.array([reference["source"].removeprefix("validation_") for reference in references])
    return {
        f"accuracy_{name}": _mean(right[source == name]) for name in sorted(set(source.tolist()))
    }


def wsc(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> dict[str, Score]:
    """Share of Winograd schemas judged correctly.

    Naming the noun counts as "True", naming anything else as "False".
    """
    right = []
    for prediction, reference in zip(predictions, references, strict=True):
        guess, noun = _content_words(prediction), _content_words(reference["target"])
        # "Bob's hat" is not "Bob". Otherwise, the shorter of the two may leave words out.
        same = ("'" in prediction) == ("'" in reference["target"]) and (
            guess <= noun or noun <= guess
        )
        right.append(bool(guess) and str(same) == reference["label"])
    return {"accuracy": _mean(right)}


_DETERMINERS = frozenset(
    (  # noqa: SIM905
        "a an few her his each every many much my our some that the their these this those which "
        "whose your"
    ).split()
)


def _content_words(text: str) -> set[str]:
    return set(text.strip().lower().split()) - _DETERMINERS


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "f1": f1,
    "macro_f1": macro_f1,
    "matthews": matthews,
    "mnli": mnli,
    "multirc": multirc,
    "pearson": pearson,
    "spearman": spearman,
    "squad": squad,
    "wsc": wsc,
}


def normalize_answer(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces."""
    text = "".join(
        character for character in text.lower() if character not in set(string.punctuation)
    )
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(prediction: str, answer: str) -> float:
    """1.0 if both are equal after normalisation."""
    return float(normalize_answer(prediction) == normalize_answer(answer))


def token_f1(prediction: str, answer: str) -> float:
    """F1 of the words that both share after normalisation."""
    guess, truth = normalize_answer(prediction).split(), normalize_answer(answer).split()
    common = sum((collections.Counter(guess) & collections.Counter(truth)).values())
    return 2 * common / (len(guess) + len(truth)) if common else 0.0


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, with ties averaged."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    # The mean of the ranks that equal values share.
    return (last - (counts - 1) / 2)[which]


def _classes(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Label numbers of targets and predictions; -1 for a prediction that is not a label."""
    number = {label: i for i, label in enumerate(labels)}
    truth = np.array([number[reference["target"].strip()] for reference in references], int)
    guess = np.array([number.get(prediction.strip(), -1) for prediction in predictions], int)
    return truth, guess


def _as_binary(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Replaces predictions that are not a label by the wrong label."""
    return np.where(guess < 0, 1 - truth, guess)


def _numbers(predictions: Sequence[str], references: References) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true numbers; -1 for a prediction that is not a number, as in T5."""
    truth = np.array([float(reference["target"]) for reference in references])
    guess = np.array([_float(prediction) for prediction in predictions])
    return guess, truth


def _float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return -1.0
    return value if math.isfinite(value) else -1.0


def _mean(values: Sequence[float] | np.ndarray) -> Score:
    x = 100 * np.asarray(values, float)
    stderr = float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan
    return Score(float(x.mean()) if len(x) else math.nan, stderr, len(x))


def _jackknife(left_out: np.ndarray, counts: np.ndarray) -> float:
    """Standard error from leave-one-out values, each of which represents `counts` observations."""
    n = counts.sum()
    if n < 2:
        return math.nan
    mean = counts @ left_out / n
    return math.sqrt((n - 1) / n * (counts @ (left_out - mean) ** 2))


def _on_confusion(
    statistic: Callable[[np.ndarray], float], truth: np.ndarray, guess: np.ndarray, num_labels: int
) -> Score:
    """A function of the confusion matrix [truth, prediction].

    The last column is for predictions that are not a label. Leaving out an observation subtracts
    one from its cell, so the jackknife needs only one value per cell.
    """
    if statistic is _binary_f1:
        guess = _as_binary(truth, guess)
    matrix = np.zeros((num_labels, num_labels + 1))
    np.add.at(matrix, (truth, guess), 1)  # -1 is the last column
    cells = np.argwhere(matrix > 0)
    left_out = []
    for cell in map(tuple, cells):
        matrix[cell] -= 1
        left_out.append(statistic(matrix))
        matrix[cell] += 1
    stderr = _jackknife(np.array(left_out), matrix[tuple(cells.T)])
    return Score(100 * statistic(matrix), 100 * stderr, len(truth))


def _binary_f1(matrix: np.ndarray) -> float:
    denominator = matrix[1].sum() + matrix[:, 1].sum()
    return float(2 * matrix[1, 1] / denominator) if denominator else 0.0


def _macro_f1(matrix: np.ndarray) -> float:
    labels = len(matrix)
    right = np.diag(matrix[:, :labels])
    denominator = matrix.sum(axis=1) + matrix.sum(axis=0)[:labels]
    return float(
        np.mean(np.divide(2 * right, denominator, out=np.zeros(labels), where=denominator > 0))
    )


def _matthews(matrix: np.ndarray) -> float:
    n, true = matrix.sum(), np.append(matrix.sum(axis=1), 0)
    guessed = matrix.sum(axis=0)
    spread = (n**2 - true @ true) * (n**2 - guessed @ guessed)
    return float((np.trace(matrix) * n - true @ guessed) / math.sqrt(spread)) if spread > 0 else 0.0


def _correlation(x: np.ndarray, y: np.ndarray) -> Score:
    """Pearson's r with the jackknife's standard error, in one pass; 0 if one side is constant."""
    n = len(x)
    x, y = x - x.mean(), y - y.mean()  # does not change r, and keeps the sums small

    def r(count: float, sx: Any, sy: Any, sxx: Any, syy: Any, sxy: Any) -> np.ndarray:
        spread = np.maximum(count * sxx - sx**2, 0) * np.maximum(count * syy - sy**2, 0)
        scale = (count * sxx) * (count * syy)
        known = spread > 1e-18 * scale
        return np.where(known, (count * sxy - sx * sy) / np.sqrt(np.where(known, spread, 1.0)), 0.0)

    total = [x.sum(), y.sum(), x @ x, y @ y, x @ y]
    left_out = r(
        n - 1, *(t - own for t, own in zip(total, [x, y, x * x, y * y, x * y], strict=True))
    )
    return Score(100 * float(r(n, *total)), 100 * _jackknife(left_out, np.ones(n)), n)
