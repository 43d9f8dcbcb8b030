"""Every probe's examples against its published generator, written again in plain Python.

Both get the same random numbers, so that whole examples can be compared. Published ids start at 0,
the probes' at 1.
"""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from train import probes
from train.data import counter_random
from train.probes.probe import TEST, RandomNumbers
from train.probes.s5 import table

SEED, ROWS = 5, np.arange(40)


def _examples(task, test=False, **settings):
    probe = probes.get({"task": task, **settings})
    return probe, RandomNumbers(SEED, ROWS), probe.examples(SEED, ROWS, test=test)


def _row(rows, n):
    """Tokens, labels and scored positions of a row without its padding, in published ids."""
    length = int(np.flatnonzero(rows.tokens[n])[-1]) + 1
    labels = [None if label == 0 else label - 1 for label in rows.labels[n][:length].tolist()]
    assert not rows.labels[n][length:].any() and not rows.scored[n][length:].any()
    return (rows.tokens[n][:length] - 1).tolist(), labels, np.flatnonzero(rows.scored[n]).tolist()


@pytest.mark.parametrize("settings", [{}, {"row": 24, "pairs": 5, "ids": 32}])
def test_mqar(settings):
    probe, draws, rows = _examples("mqar", **settings)
    half, pairs = probe.ids // 2, probe.pairs
    keys = 1 + draws.distinct(half - 1, pairs)
    values = half + draws.distinct(half, pairs)
    gaps = probe.gaps(draws)
    noise = draws.below(probe.ids, probe.row)
    for n in range(len(ROWS)):
        tokens, labels = list(noise[n]), [None] * probe.row
        for p in range(pairs):
            tokens[2 * p : 2 * p + 2] = keys[n, p], values[n, p]
        for p in range(pairs):
            tokens[2 * pairs + 2 * gaps[n, p]] = keys[n, p]
            labels[2 * pairs + 2 * gaps[n, p]] = values[n, p]
        assert _row(rows, n)[:2] == (tokens, labels)
        assert len(set(keys[n])) == len(set(values[n])) == len(set(gaps[n])) == pairs
        assert keys[n].min() >= 1 and keys[n].max() < half <= values[n].min()


def test_mqar_draws_places_by_the_published_weights():
    """A single place has the published probability, so this is all of the distribution of one."""
    probe = probes.get({"task": "mqar", "row": 24, "pairs": 1})
    drawn = probe.gaps(RandomNumbers(0, np.arange(40_000)))[:, 0]
    weights = np.arange(1, 12) ** (0.01 - 1)
    counts = np.bincount(drawn, minlength=11)
    expected = 40_000 * weights / weights.sum()
    assert (((counts - expected) ** 2) / expected).sum() < 30  # chi square, 10 degrees of freedom


@pytest.mark.parametrize("task", ["recall", "noisy_recall"])
def test_recall(task):
    probe, draws, rows = _examples(task)
    known = probe.ids - probe.noise_ids
    half, pairs = known // 2, probe.row // 2
    keys = draws.below(half, pairs - 1)
    values = half + draws.below(known - half, half)
    kept = draws.below(pairs, 1)[:, 0]
    noisy = draws.uniform(pairs - 1)
    last = draws.uniform(half)
    noise = known + draws.below(probe.noise_ids, probe.row) if probe.noise else None
    for n in range(len(ROWS)):
        inputs, scored, seen = [], [], set()
        for p in range(pairs - 1):
            if p != kept[n] and noisy[n, p] < probe.noise:
                inputs += noise[n, 2 * p : 2 * p + 2].tolist()
                scored += [False, False]
                continue
            key = int(keys[n, p])
            inputs += [key, values[n, key]]
            scored += [False, key in seen]
            seen.add(key)
        key = max(seen, key=lambda k, n=n: last[n, k])
        inputs += [key, values[n, key]]
        scored += [False, True]
        found, labels, at = _row(rows, n)
        assert (found, labels) == (inputs[:-1], inputs[1:])
        assert at == np.flatnonzero(scored[1:]).tolist()


@pytest.mark.parametrize("test", [False, True])
def test_fuzzy_recall(test):
    probe, draws, rows = _examples("fuzzy_recall", test=test)
    keys, most = (probe.ids - 1) // 2, probe.key_size

    def key(draws):
        size, order = draws.below(most, 1)[:, 0], np.argsort(draws.uniform(keys), axis=1)
        return [tuple(row[: most if test else 1 + s]) for row, s in zip(order, size, strict=True)]

    def value(draws):
        count = probe.ids - 1 - keys
        size, order = draws.below(3, 1)[:, 0], np.argsort(draws.uniform(count), axis=1)
        return [tuple(keys + row[: 1 + s]) for row, s in zip(order, size, strict=True)]

    asked_keys, asked_values = key(draws), value(draws)
    lengths = np.array([len(k) + len(v) for k, v in zip(asked_keys, asked_values, strict=True)])
    starts = draws.below((probe.row - 2 * lengths)[:, None].astype(np.uint64), 1)[:, 0]
    drawn_keys = [key(draws) for _ in range(probe.row)]
    for n in range(len(ROWS)):
        asked, answer = asked_keys[n], asked_values[n]
        inputs, scored, known, added, turn = [], [], {}, False, 0
        while len(inputs) < probe.row - lengths[n] - 6:
            drawn = drawn_keys[turn][n]
            turn += 1
            if len(inputs) >= starts[n] and not added:
                inputs += [*asked, *answer]
                scored += [False] * lengths[n]
                known[asked], added = answer, True
                continue
            if drawn == asked:
                chosen, added = answer, True
            else:
                code = sum((1 + token) * (keys + 1) ** i for i, token in enumerate(drawn))
                own = RandomNumbers(SEED, ROWS[n : n + 1]).of(np.array([code]), (keys + 1) ** most)
                chosen = value(own)[0]
            inputs += [*drawn, *chosen]
            scored += [False] * len(drawn) + [drawn in known] * len(chosen)
            known[drawn] = chosen
        inputs += [*asked, *answer]
        scored += [False] * len(asked) + [True] * len(answer)
        missing = probe.row + 1 - len(inputs)
        inputs = [probe.ids - 1] * missing + inputs
        scored = [False] * missing + scored
        found, labels, at = _row(rows, n)
        assert (found, labels) == (inputs[:-1], inputs[1:])
        assert at == np.flatnonzero(scored[1:]).tolist()


def test_selective_copy():
    probe, draws, rows = _examples("selective_copy")
    blank, mark = probe.ids - 2, probe.ids - 1
    copied = draws.below(probe.ids - 2, probe.copied)
    before = draws.below(probe.copied, probe.row - 2 * probe.copied - 1)
    for n in range(len(ROWS)):
        inputs = np.insert(copied[n], before[n], blank).tolist() + [mark] + [blank] * probe.copied
        labels = [None] * (probe.row - probe.copied) + copied[n].tolist()
        assert _row(rows, n)[:2] == (inputs, labels)


def test_memorisation():
    probe, draws, rows = _examples("memorisation")
    keys = (probe.ids - 1) // 2
    places = counter_random.permute(TEST, np.zeros(keys, int), np.arange(keys), 128)
    values = dict(zip(range(keys), keys + places, strict=True))
    assert len(set(values.values())) == keys and max(values.values()) < probe.ids - 1
    drawn = draws.below(keys, probe.row // 2)
    for n in range(len(ROWS)):
        inputs = [token for key in drawn[n] for token in (key, probe.ids - 1)]
        labels = [label for key in drawn[n] for label in (None, values[key])]
        assert _row(rows, n)[:2] == (inputs, labels)


def test_compression():
    probe, draws, rows = _examples("compression")
    drawn = draws.below(probe.ids - 1, probe.row)
    for n in range(len(ROWS)):
        inputs = [*drawn[n, :-1].tolist(), probe.ids - 1]
        assert _row(rows, n) == (inputs, inputs, list(range(probe.row)))


@pytest.mark.parametrize("test", [False, True])
def test_copy(test):
    probe, draws, rows = _examples("copy", test=test)
    sizes = probe.sizes(draws, test=test)
    letters = draws.below(26, max(probe.tested) if test else probe.longest_trained)
    for n, size in enumerate(sizes):
        string = letters[n, :size].tolist()
        inputs, labels, at = _row(rows, n)
        assert inputs == [26, *string, 27, *string]
        assert labels == [None] * (size + 1) + [*string, 28]
        assert at == list(range(size + 1, 2 * size + 1))
        assert rows.size[n] == size


def _value_of(expression):
    """The value of digits and operators (5: +, 6: -, 7: *), split at the last sum."""
    for at in range(len(expression) - 2, 0, -2):
        if expression[at] in (5, 6):
            sign = 1 if expression[at] == 5 else -1
            return _value_of(expression[:at]) + sign * _value_of(expression[at + 1 :])
    return functools.reduce(lambda a, b: a * b, expression[::2])


CLASSES = {
    "parity": lambda s: s.count(1) % 2,
    "even_pairs": lambda s: (sum(a != b for a, b in itertools.pairwise(s))) % 2,
    "cycle": lambda s: sum(x - 1 for x in s) % 5,
    "mod_arithmetic": lambda s: _value_of(s) % 5,
}


@pytest.mark.parametrize("test", [False, True])
@pytest.mark.parametrize("task", CLASSES)
def test_strings_with_one_answer(task, test):
    probe, draws, rows = _examples(task, test=test)
    sizes = probe.sizes(draws, test=test)
    for n, size in enumerate(sizes):
        tokens, labels, at = _row(rows, n)
        assert len(tokens) == size + 1 and tokens[-1] == probe.symbols and at == [size]
        string = tokens[:-1]
        assert all(0 <= symbol < probe.symbols for symbol in string)
        assert labels == [None] * size + [probe.symbols + 1 + CLASSES[task](string)]
        if task == "mod_arithmetic":
            assert size % 2 and all(x < 5 for x in string[::2])
            assert all(x >= 5 for x in string[1::2])


@pytest.mark.parametrize("group", ["S5", "A5", "Z60"])
def test_word_problem(group):
    probe, draws, rows = _examples("s5", group=group)
    probe.sizes(draws, test=False)
    elements = draws.below(len(table(group)), probe.longest_trained)
    if group == "Z60":
        elements_of, times = list(range(60)), lambda p, q: (p + q) % 60
    else:
        elements_of = [
            p
            for p in itertools.permutations(range(5))
            if group == "S5" or round(np.linalg.det(np.eye(5)[list(p)])) == 1
        ]
        times = lambda p, q: tuple(q[i] for i in p)
    for n, size in enumerate(rows.size):
        word = [elements_of[e] for e in elements[n, :size]]
        products = list(itertools.accumulate(word, times))
        tokens, labels, at = _row(rows, n)
        assert tokens == [elements_of.index(e) for e in word]
        assert labels == [elements_of.index(e) for e in products]
        assert at == [size - 1]


def test_every_probe_has_a_published_generator_here():
    here = {*CLASSES, "mqar", "recall", "noisy_recall", "fuzzy_recall", "selective_copy"}
    assert set(probes.names()) == here | {"memorisation", "compression", "copy", "s5"}


@pytest.mark.parametrize("task", probes.names())
def test_an_example_depends_only_on_seed_and_number(task):
    probe = probes.get({"task": task})
    whole = probe.examples(3, np.arange(30))
    some = probe.examples(3, np.array([7, 29, 7]))
    for values, chosen in zip(whole[:3], some[:3], strict=True):
        np.testing.assert_array_equal(values[[7, 29, 7]], chosen)
    other = probe.examples(4, np.arange(30))
    assert (whole.tokens != other.tokens).any()
    assert whole.tokens.shape[1] == probe.length <= probe.longest
    assert whole.tokens.max() < probe.vocab_size and whole.labels.max() < probe.vocab_size
    assert (whole.labels > 0).sum(axis=1).max() <= probe.most_answers
    asked = whole.labels[whole.scored]
    assert set(asked.tolist()) <= set(probe.answers)
    assert dataclasses.replace(probe) == probe
