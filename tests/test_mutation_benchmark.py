"""`benchmarks.mutation` on a toy project: the edits that it makes and avoids, and its report."""

import dataclasses
import json
import sys

import pytest

from benchmarks import mutation

CODE = '''"""A docstring with 1 number."""
import math


def clamp(x: int, top: "int | None" = None, *, strict: bool = False) -> float:
    """Adds 1."""
    if x < 0 and not strict:
        raise ValueError(f"{x + 1} is min(1, 2)")
    return min(x + 1, 10)
'''
TOY = "def clamp(x):\n    return min(x, 10)\n"
TESTS = """
from toy import clamp

def test_clamp():
    assert clamp(4) == 4
    assert clamp(90) >= 10
"""
NAMED = '[[named]]\nname = "the larger"\npath = "toy.py"\nbefore = "min"\nafter = "max"\n'
EQUIVALENT = (
    '[[equivalent]]\npath = "toy.py"\nbefore = "return min(x, 10)"\nafter = "return min(x, 11)"\n'
)


def edits(code: str) -> set[tuple[int, str]]:
    return {(mutant.line, mutant.after) for mutant in mutation.mutants("toy.py", code)}


def test_edits_change_only_what_is_computed():
    """Docstrings, annotations and messages are left alone; each edit is on the line it names."""
    signature = 'def clamp(x: int, top: "int | None" = None, *, strict: bool = {}) -> float:'
    assert edits(CODE) == {
        (5, signature.format("True")),
        (7, "if (not (x < 0 and not strict)):"),
        (7, "if x <= 0 and not strict:"),
        (7, "if x < 1 and not strict:"),
        (7, "if x < 0 or not strict:"),
        (7, "if x < 0 and strict:"),
        (9, "return max(x + 1, 10)"),
        (9, "return min(x - 1, 10)"),
        (9, "return min(x, 10)"),
        (9, "return min(1, 10)"),
        (9, "return min(x + 2, 10)"),
        (9, "return min(x + 1, 11)"),
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "y = (a + b) * (c)",
            {
                "y = (a - b) * (c)",
                "y = (a) * (c)",
                "y = (b) * (c)",
                "y = (a + b) / (c)",
                "y = (a + b)",
                "y = c",
            },
        ),
        ("y = f(a, k=b)", {"y = f(a)"}),
        ("y = f(k=b, j=c)", {"y = f(j=c)", "y = f(k=b)"}),
        (
            "y = zip(a, b * c, strict=True)",
            {
                "y = zip(a, b / c, strict=True)",
                "y = zip(a, b, strict=True)",
                "y = zip(a, c, strict=True)",
            },
        ),
        ("y = ctx.fold(i).dropout(x)", {"y = x", "y = ctx.dropout(x)"}),
        ("y = jnp.square(x)", {"y = x"}),
        ("y = a is not b", {"y = a is b"}),
        ("y = a if b else c", {"y = a if (not (b)) else c"}),
        ("y //= z", {"y *= z"}),
        ("y = -x", {"y = x"}),
        ("assert x, 'é' + str(1)", set()),
        ("é = 'é', a % b", {"é = 'é', a * b", "é = 'é', a", "é = 'é', b"}),
        ("with jax.named_scope(f'{a + b}'): pass", set()),
    ],
)
def test_each_kind_of_edit(line, expected):
    assert {after for _, after in edits(line)} == expected


def test_a_sample_stays_where_the_code_does():
    """An additional line at the top does not change which mutants are in a sample."""
    ranks = [
        {m.after: m.rank(0) for m in mutation.mutants("toy.py", code)}
        for code in (CODE, f"import sys\n{CODE}")
    ]
    assert ranks[0] == ranks[1]
    assert ranks[0] != {m.after: m.rank(1) for m in mutation.mutants("toy.py", CODE)}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A directory with one source file and its test, which the script takes for the project."""
    root = tmp_path / "root"
    (root / "tests").mkdir(parents=True)
    (root / "benchmarks").mkdir()
    (root / "toy.py").write_text(TOY)
    (root / "tests" / "test_toy.py").write_text(TESTS)
    data = root / "benchmarks" / "mutants.toml"
    data.write_text(NAMED)
    for name, value in {
        "ROOT": root,
        "DATA": data,
        "TARGETS": {"toy.py": "tests/test_toy.py"},
    }.items():
        monkeypatch.setattr(mutation, name, value)
    return root


def run(monkeypatch, capsys, *arguments: str):
    monkeypatch.setattr(sys, "argv", ["mutation", "--workers", "1", *arguments])
    code = mutation.main()
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_survivors_are_named_and_a_journal_is_continued(toy, monkeypatch, capsys):
    """The weak second assertion of the test lets a larger bound survive.

    Every later run tries only the mutants that are not in the journal yet.
    """
    journal = toy.parent / "journal.jsonl"
    code, result = run(monkeypatch, capsys, "--sample", "0", "--journal", str(journal))
    assert code == 1
    (survivor,) = result["survivors"]
    assert survivor == {
        "path": "toy.py",
        "line": 2,
        "kind": "constant",
        "before": "return min(x, 10)",
        "after": "return min(x, 11)",
    }
    assert [result[key] for key in ("mutants", "tried", "killed", "survived", "equivalent")] == [
        2,
        2,
        1,
        1,
        0,
    ]
    assert result["survival_rate"] == 0.5
    assert (toy / "toy.py").read_text() == TOY

    monkeypatch.setattr(mutation.Runner, "run", lambda *_: pytest.fail("tried again"))
    (toy / "benchmarks" / "mutants.toml").write_text(NAMED + EQUIVALENT)
    code, result = run(monkeypatch, capsys, "--sample", "0", "--journal", str(journal))
    assert code == 0
    assert [result[key] for key in ("tried", "killed", "survived", "equivalent")] == [2, 1, 0, 1]
    assert result["survival_rate"] == 0
    code, result = run(monkeypatch, capsys, "--named", "--journal", str(journal))
    assert code == 0
    killed = {
        "mistake": "the larger",
        "outcome": "killed",
        "killed_by": "tests/test_toy.py::test_clamp",
    }
    assert result == {"killed": 1, "of": 1, "named": [killed]}


@pytest.mark.parametrize(
    "arguments", [["--targets", "tay.py"], ["--sample", "-1"], ["--workers", "0"]]
)
def test_nonsense_is_refused(toy, monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, capsys, *arguments)
    assert refused.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.slow
def test_a_survivor_is_tried_again_once_tests_have_changed(toy, tmp_path):
    journal = tmp_path / "journal.jsonl"
    (larger, smaller) = mutation.mutants("toy.py", TOY)
    for mutant, outcome in ((larger, "killed"), (smaller, "survived")):
        mutation.Journal(journal, toy).add(mutant, outcome, "")
    with journal.open("a") as file:
        file.write('{"key": "a line of a run that was ki')
    assert all(mutation.Journal(journal, toy).get(mutant) for mutant in (larger, smaller))
    (toy / "tests" / "test_toy.py").write_text(TESTS.replace(">= 10", "== 10"))
    again = mutation.Journal(journal, toy)
    assert again.get(larger) and not again.get(smaller)
    assert mutation.Runner(toy, tmp_path, 1).run(smaller, "tests/test_toy.py") == (
        "killed",
        "tests/test_toy.py::test_clamp",
    )


@pytest.mark.slow
def test_what_never_ends_is_killed_and_failing_tests_kill_nothing(toy, tmp_path):
    runner = mutation.Runner(toy, tmp_path, 1)
    (mutant, *_) = mutation.mutants("toy.py", TOY)
    endless = dataclasses.replace(mutant, text="def clamp(x):\n    while True: pass\n")
    runner.limits["tests/test_toy.py"] = 3
    assert runner.run(endless, "tests/test_toy.py") == ("timeout", "")
    (tmp_path / "0" / "toy.py").write_text("def clamp(x): return 0\n")
    with pytest.raises(RuntimeError, match="without a mutant, tests/test_toy.py::test_clamp"):
        runner.baseline("tests/test_toy.py")
    with pytest.raises(RuntimeError, match="pytest tests/test_gone.py"):
        runner.baseline("tests/test_gone.py")


def test_named_mistakes_occur_in_the_code_once():
    """Each mistake of the committed list can still be made, by exactly one edit."""
    mistakes = mutation.named(mutation.DATA)
    assert len(mistakes) >= 16
    assert len({name for name, *_ in mistakes}) == len(mistakes)
    for _, mutant, tests in mistakes:
        assert mutant.before != mutant.after and tests


@pytest.mark.slow
def test_equivalent_mutants_are_mutants_of_the_code():
    """An entry that no edit produces any more is out of date."""
    listed = mutation.equivalent(mutation.DATA)
    made = {
        (mutant.path, mutant.before, mutant.after)
        for path in {path for path, *_ in listed}
        for mutant in mutation.mutants(path, (mutation.ROOT / path).read_text())
    }
    assert listed <= made
