"""Every metric against an independent implementation.

These are scikit-learn, SciPy, and the official definitions written again.
"""

import collections
import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from train.tasks import metrics, scoring
from train.tasks.metrics import METRICS

_BINARY = ("not_equivalent", "equivalent")
_THREE = ("entailment", "contradiction", "neutral")
_MANY = settings(max_examples=60, deadline=None)


def _pairs(labels, invalid=True):
    guesses = [*labels, "gibberish"] if invalid else labels
    return st.lists(
        st.tuples(st.sampled_from(guesses), st.sampled_from(labels)), min_size=1, max_size=40
    )


def _run(name, pairs, labels=()):
    predictions = [prediction for prediction, _ in pairs]
    return METRICS[name](predictions, [{"target": target} for _, target in pairs], labels)


def _ids(pairs, labels):
    number = {label: i for i, label in enumerate(labels)}
    return [number[t] for _, t in pairs], [number.get(p, -1) for p, _ in pairs]


@given(_pairs(_BINARY))
@_MANY
def test_accuracy(pairs):
    expected = 100 * sklearn.metrics.accuracy_score(*zip(*[(t, p) for p, t in pairs], strict=True))
    assert _run("accuracy", pairs)["accuracy"].value == pytest.approx(expected)


@given(_pairs(_BINARY))
@_MANY
def test_f1_counts_what_is_no_label_as_the_wrong_one(pairs):
    truth, guess = _ids(pairs, _BINARY)
    guess = [1 - t if g < 0 else g for t, g in zip(truth, guess, strict=True)]
    expected = 100 * sklearn.metrics.f1_score(truth, guess, zero_division=0)
    assert _run("f1", pairs, _BINARY)["f1"].value == pytest.approx(expected)


@given(_pairs(_THREE))
@_MANY
def test_macro_f1(pairs):
    truth, guess = _ids(pairs, _THREE)
    expected = 100 * sklearn.metrics.f1_score(
        truth, guess, labels=[0, 1, 2], average="macro", zero_division=0
    )
    assert _run("macro_f1", pairs, _THREE)["macro_f1"].value == pytest.approx(expected)


@given(_pairs(_BINARY))
@_MANY
def test_matthews(pairs):
    with warnings.catch_warnings(action="ignore"):
        expected = 100 * sklearn.metrics.matthews_corrcoef(*_ids(pairs, _BINARY))
    assert _run("matthews", pairs, _BINARY)["matthews"].value == pytest.approx(expected, abs=1e-9)


_numbers = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), min_size=3, max_size=40)


@given(_numbers)
@_MANY
def test_correlations(numbers):
    pairs = [(str(p / 5), str(t / 5)) for p, t in numbers]
    x, y = np.array(numbers).T / 5
    for name, reference in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        with warnings.catch_warnings(action="ignore"):
            expected = 100 * float(reference(x, y)[0])
        assert _run(name, pairs)[name].value == pytest.approx(
            0 if math.isnan(expected) else expected, abs=1e-8
        )


def test_a_prediction_that_is_no_number_counts_as_minus_one():
    pairs = [("3.0", "2.8"), ("none", "0.4"), ("nan", "0.2"), ("5.0", "4.6")]
    expected = scipy.stats.pearsonr([3.0, -1.0, -1.0, 5.0], [2.8, 0.4, 0.2, 4.6])[0]
    assert _run("pearson", pairs)["pearson"].value == pytest.approx(100 * expected)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
@_MANY
def test_ranks(numbers):
    values = np.array(numbers).ravel()
    np.testing.assert_array_equal(metrics.ranks(values), scipy.stats.rankdata(values))


# The official SQuAD evaluation, written from its definition in another order of steps, character by
# character.
def _official_words(text):
    kept = "".join(c for c in text.lower() if c not in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    return [word for word in _without_articles(kept).split() if word]


def _without_articles(text):
    words, out = "", []
    for character in text + " ":
        if character.isalnum() or character == "_":
            words += character
        else:
            out += [" " if words in ("a", "an", "the") else words, character]
            words = ""
    return "".join(out)


def _official_f1(prediction, answer):
    guess, truth = (
        collections.Counter(_official_words(prediction)),
        collections.Counter(_official_words(answer)),
    )
    common = sum(min(guess[word], truth[word]) for word in guess)
    if not common:
        return 0.0
    precision, recall = common / sum(guess.values()), common / sum(truth.values())
    return 2 * precision * recall / (precision + recall)


_phrases = st.lists(
    st.sampled_from(
        ["the", "The", "a", "cat", "Cat!", "dog's", "an", "'", "42", "naïve", "x-y", ".", "cat the"]
    ),
    max_size=6,
).map(" ".join)


@given(
    st.lists(
        st.tuples(_phrases, st.lists(_phrases, min_size=1, max_size=3)), min_size=1, max_size=10
    )
)
@_MANY
def test_squad(rows):
    scores = METRICS["squad"](
        [p for p, _ in rows], [{"target": a[0], "answers": a} for _, a in rows], ()
    )
    exact = [max(_official_words(p) == _official_words(a) for a in answers) for p, answers in rows]
    overlap = [max(_official_f1(p, a) for a in answers) for p, answers in rows]
    assert scores["em"].value == pytest.approx(100 * np.mean(exact))
    assert scores["f1"].value == pytest.approx(100 * np.mean(overlap))


@given(
    st.lists(
        st.tuples(st.sampled_from([*_THREE, "?"]), st.sampled_from(_THREE), st.booleans()),
        min_size=1,
    )
)
@_MANY
def test_mnli_is_the_mean_of_both_validation_sets(rows):
    references = [
        {"target": t, "source": f"validation_{'matched' if m else 'mismatched'}"}
        for _, t, m in rows
    ]
    scores = scoring.score(("mnli",), [p for p, _, _ in rows], references, _THREE)
    parts = [[(t, p) for p, t, m in rows if m == matched] for matched in (True, False)]
    expected = [
        100 * sklearn.metrics.accuracy_score(*zip(*part, strict=True)) for part in parts if part
    ]
    assert scores["score"].value == pytest.approx(np.mean(expected))
    assert sum(score.n for name, score in scores.items() if name != "score") == len(rows)


def test_squad_normalisation_on_known_cases():
    assert metrics.exact_match("The Eiffel-Tower.", "eiffeltower") == 1
    assert metrics.exact_match("an  apple", "Apple") == 1
    assert metrics.exact_match("", "the") == 1
    assert metrics.token_f1("the cat sat", "a cat stood up") == pytest.approx(2 / 5)


def test_rows_of_one_group_are_one_question():
    references = [{"target": "x", "answers": ["x", "y"], "group": "q1"}] * 2 + [
        {"target": "z", "answers": ["z"], "group": "q2"}
    ]
    scores = METRICS["squad"](["y", "y", "w"], references, ())
    assert scores["em"].n == 2 and scores["em"].value == 50


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 1), st.integers(-1, 1)), min_size=1, max_size=40
    )
)
@_MANY
def test_multirc(rows):
    labels = ("False", "True")
    references = [{"target": labels[truth], "group": f"q{group}"} for group, truth, _ in rows]
    scores = METRICS["multirc"](
        ["?" if guess < 0 else labels[guess] for _, _, guess in rows], references, labels
    )
    truth = [t for _, t, _ in rows]
    guess = [1 - t if g < 0 else g for _, t, g in rows]
    assert scores["f1a"].value == pytest.approx(
        100 * sklearn.metrics.f1_score(truth, guess, zero_division=0)
    )
    questions = collections.defaultdict(list)
    for group, t, g in rows:
        questions[group].append(t == g)
    assert scores["em"].value == pytest.approx(100 * np.mean([all(q) for q in questions.values()]))
    assert scores["em"].n == len(questions)


def _jackknife(statistic, n):
    values = np.array([statistic([j for j in range(n) if j != i]) for i in range(n)])
    return math.sqrt((n - 1) / n * np.sum((values - values.mean()) ** 2))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("accuracy", _BINARY),
        ("f1", _BINARY),
        ("macro_f1", _THREE),
        ("matthews", _BINARY),
        ("pearson", ()),
    ],
)
def test_standard_errors_are_the_jackknifes(name, labels):
    random = np.random.default_rng(0)
    if labels:
        pairs = [(random.choice([*labels, "?"]), random.choice(labels)) for _ in range(60)]
    else:
        pairs = [(str(a + b), str(a)) for a, b in random.normal(size=(60, 2))]
    expected = _jackknife(
        lambda keep: _run(name, [pairs[i] for i in keep], labels)[name].value, len(pairs)
    )
    assert _run(name, pairs, labels)[name].stderr == pytest.approx(expected, rel=1e-6)


def test_standard_errors_agree_with_the_bootstrap():
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 500)
    guess = np.where(random.random(500) < 0.8, truth, 1 - truth)
    pairs = [(_BINARY[g], _BINARY[t]) for g, t in zip(guess, truth, strict=True)]
    for name in ("f1", "matthews"):
        draws = []
        for _ in range(300):
            chosen = random.integers(0, 500, 500)
            draws.append(_run(name, [pairs[i] for i in chosen], _BINARY)[name].value)
        assert _run(name, pairs, _BINARY)[name].stderr == pytest.approx(np.std(draws), rel=0.15)


def test_headline_is_the_mean_and_majority_class_is_the_best_constant():
    references = [{"target": "equivalent"}] * 3 + [{"target": "not_equivalent"}]
    scores = scoring.score(("f1", "accuracy"), ["equivalent"] * 4, references, _BINARY)
    assert scores["accuracy"].value == 75 and scores["f1"].value == pytest.approx(100 * 6 / 7)
    assert scores["score"].value == pytest.approx((75 + 600 / 7) / 2)
    assert scoring.majority_class(("accuracy",), references, _BINARY) == 75
    assert scoring.majority_class(("matthews",), references, _BINARY) == 0
    answers = [
        {"target": "a", "answers": ["3", "4"]},
        {"target": "b", "answers": ["3"]},
        {"target": "c", "answers": ["5"]},
    ]
    assert scoring.majority_class(("squad",), answers) == pytest.approx(200 / 3)


def test_averages_by_benchmark():
    found = scoring.averages(
        {
            "glue_cola": 50.0,
            "glue_sst2": 90.0,
            "super_glue_cb": 30.0,
            "squad": 10.0,
            "python_answer": 20.0,
        }
    )
    assert found == {"glue": 70.0, "super_glue": 30.0, "squad": 10.0, "python": 20.0, "mean": 40.0}
    assert scoring.averages({}) == {}
