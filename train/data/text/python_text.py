"""The embedded corpus: text of the running Python installation.

It is read as files and never imported or run. A module gives two documents: its docstrings (each
under its signature), and its source without them. Each documentation topic of `pydoc` gives one. A
module, with everything in it, belongs to one split, so pretraining text and downstream examples of
the validation split come from modules that training never sees.
"""

import ast
import copy
import dataclasses
import functools
import hashlib
import re
import sysconfig
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from train.records import InputError

VERSION = 2  # of what is told of each document besides its text
VALIDATION_SHARE = 0.18
TOPICS = "pydoc_data/topics.py"
TOP_LEVEL = "(top level)"  # the package of modules outside any package

# Skipped, because it is neither prose nor typical code: tests, third parties, character tables,
# build settings of this machine.
_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "lib-dynload",
    "data",
}
_SKIPPED_FILES = re.compile(
    r"encodings/.*|pydoc_data/.*|msilib/.*|config-.*|_sysconfigdata.*|html/entities\.py"
    r"|stringprep\.py"
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A documented module, class or function.

    Attributes:
      module: path of its file, for example "asyncio/streams.py".
      package: its top-level package, or TOP_LEVEL.
      name: dotted name inside the module; empty for the module itself.
      arguments: the function's arguments without annotations; None for modules and classes.
      docstring: cleaned like in `inspect.getdoc`.
    """

    module: str
    package: str
    name: str
    arguments: ast.arguments | None
    docstring: str

    @functools.cached_property
    def signature(self) -> str:
        """The line that declares it, without `self` and `cls`."""
        short = self.name.rsplit(".", 1)[-1]
        if self.arguments is None:
            return (
                f"class {short}"
                if self.name
                else f"module {self.module.removesuffix('.py').replace('/', '.')}"
            )
        return f"def {short}({ast.unparse(self.arguments)})"


@dataclasses.dataclass(frozen=True)
class Module:
    """One file: its entries and its source without docstrings."""

    path: str
    package: str
    entries: tuple[Entry, ...]
    source: str


@dataclasses.dataclass(frozen=True)
class Text:
    """The text of a split.

    Attributes:
      modules: the modules, without files whose whole text occurred before.
      topics: documentation topics.
    """

    modules: tuple[Module, ...]
    topics: tuple[str, ...]

    def documents(self) -> dict[str, str]:
        """Pretraining documents without repetition, in an order given by their hashes.

        Returns:
          The part of the corpus that each belongs to: topics, docstrings or source.
        """
        docs = [
            "\n\n".join(f"{e.signature}\n{e.docstring}" for e in m.entries) for m in self.modules
        ]
        parts = {"topics": self.topics, "docstrings": docs}
        parts["source"] = [module.source for module in self.modules]
        part_of: dict[str, str] = {}
        for part, texts in parts.items():
            for text in filter(None, texts):
                part_of.setdefault(text, part)
        order = sorted(part_of, key=lambda text: hashlib.sha256(text.encode()).digest())
        return {text: part_of[text] for text in order}

    @property
    def entries(self) -> list[Entry]:
        """All entries of all modules."""
        return [entry for module in self.modules for entry in module.entries]


@dataclasses.dataclass(frozen=True)
class PythonText:
    """Both splits."""

    train: Text
    validation: Text

    def split(self, name: str) -> Text:
        """The text of "train" or "validation"."""
        return {"train": self.train, "validation": self.validation}[name]


def fingerprint(root: str = "") -> str:
    """The sha256 of the files that the text is read from, in order of names; takes under 1 s."""
    digest = hashlib.sha256()
    for name, content in _files(_library(root)):
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def read(root: str = "") -> PythonText:
    """Reads and splits the text.

    Args:
      root: a library's directory; empty for that of the running interpreter.

    Raises:
      InputError: there are no Python files.
    """
    files = dict(_files(_library(root)))
    topics = _topics(files.pop(TOPICS, b""))
    distinct = {content: name for name, content in reversed(files.items())}
    modules = [
        m for m in (_parse(name, content) for content, name in reversed(distinct.items())) if m
    ]
    if not modules:
        raise InputError(f"python text: {root} holds no Python source")
    held_out = _held_out([(m.package, m.path, len(m.source)) for m in modules])
    held_out_topics = _held_out([("topics", name, len(text)) for name, text in topics.items()])

    def text(*, validation: bool) -> Text:
        return Text(
            tuple(m for m in modules if (m.path in held_out) == validation),
            tuple(text for name, text in topics.items() if (name in held_out_topics) == validation),
        )

    return PythonText(text(validation=False), text(validation=True))


def _library(root: str) -> Path:
    return Path(root or sysconfig.get_paths()["stdlib"])


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of the corpus, sorted by name."""
    for name, path in sorted(
        (path.relative_to(root).as_posix(), path) for path in root.rglob("*.py")
    ):
        if name == TOPICS or not (
            _SKIPPED_FOLDERS & set(name.split("/")) or _SKIPPED_FILES.match(name)
        ):
            yield name, path.read_bytes()


def _topics(content: bytes) -> dict[str, str]:
    """The texts of pydoc's table of topics, by name."""
    tables = [node.value for node in ast.parse(content).body if isinstance(node, ast.Assign)]
    return {name: text for table in tables for name, text in ast.literal_eval(table).items()}


def _held_out(items: Iterable[tuple[str, str, int]]) -> set[str]:
    """Names for validation, given (group, name, size).

    About VALIDATION_SHARE of each group, chosen by the hash of the name.
    """
    groups = defaultdict(list)
    for group, name, size in items:
        groups[group].append((hashlib.sha256(name.encode()).digest(), name, size))
    chosen = set()
    for members in groups.values():
        room = VALIDATION_SHARE * sum(size for _, _, size in members)
        for _, name, size in sorted(members):
            if size <= room:
                chosen.add(name)
                room -= size
    return chosen


def _parse(name: str, content: bytes) -> Module | None:
    """A module's entries and source; None if this version of Python cannot parse the file."""
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # newer parsers warn about escapes in old files
            tree = ast.parse(content)
        source = content.decode("utf-8")
    except (SyntaxError, ValueError):
        return None
    package = name.split("/")[0] if "/" in name else TOP_LEVEL
    entries, spans = [], []
    _walk(tree, "", name, package, entries, spans)
    lines = source.splitlines(keepends=True)
    for first, last in spans:
        lines[first:last] = [""] * (last - first)
    return Module(name, package, tuple(entries), "".join(lines).strip("\n"))


def _walk(
    node: ast.AST,
    name: str,
    module: str,
    package: str,
    entries: list[Entry],
    spans: list[tuple[int, int]],
) -> None:
    """Collects the entries below a node, and the lines of its docstrings."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node)
        if docstring:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            arguments = _plain(node.args) if function else None
            entries.append(Entry(module, package, name, arguments, docstring))
            spans.append((node.body[0].lineno - 1, node.body[0].end_lineno or node.body[0].lineno))
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _walk(child, f"{name}.{child.name}".lstrip("."), module, package, entries, spans)
        elif isinstance(child, ast.If | ast.Try | ast.With):
            _walk(child, name, module, package, entries, spans)


def _plain(arguments: ast.arguments) -> ast.arguments:
    """The arguments without annotations, self and cls."""
    plain = copy.deepcopy(arguments)
    every = [*plain.posonlyargs, *plain.args, *plain.kwonlyargs, plain.vararg, plain.kwarg]
    for argument in every:
        if argument is not None:
            argument.annotation = None
    first = plain.posonlyargs or plain.args
    if first and first[0].arg in ("self", "cls") and len(first) > len(plain.defaults):
        first.pop(0)
    return plain
