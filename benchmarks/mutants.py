"""Plausible mistakes: every edit that `benchmarks.mutation` may make, before and after."""

import ast
import contextlib
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from typing import Any

_OPERATORS: dict[type, tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
}
_PAIRS = [
    ("min", "max"),
    ("minimum", "maximum"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("zeros", "ones"),
    ("zeros_like", "ones_like"),
    ("mean", "sum"),
    ("sin", "cos"),
    ("floor", "ceil"),
]
_SWAPS = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}
# Calls of these are replaced by their first argument, or by the object whose method they are.
_FUNCTIONS = {
    "abs",
    "square",
    "sqrt",
    "rsqrt",
    "exp",
    "log",
    "relu",
    "tanh",
    "sigmoid",
    "cumsum",
    "tril",
    "norm",
    "maximum",
    "minimum",
    "round",
    "float",
    "sorted",
    "reversed",
    "log_softmax",
    "softmax",
}
_METHODS = {"fold", "astype", "swapaxes", "mean", "replace", "dropout", "copy"}
_COMPOUND = (ast.BinOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.UnaryOp)
_SILENT = {"named_scope", "checkpoint_name"}  # calls whose arguments are only names in a trace
_CHECKED = {
    "zip"
}  # calls whose keywords only check: a correct program runs the same without `strict=True`


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One edit of a file.

    Attributes:
      path: path of the file from the root.
      line: line of the first character that differs.
      kind: the kind of mistake.
      before: the lines of the edit in the original file, joined and stripped.
      after: the same lines in the edited file.
      text: the whole edited file.
    """

    path: str
    line: int
    kind: str
    before: str
    after: str
    text: str = dataclasses.field(repr=False)

    @property
    def row(self) -> dict[str, Any]:
        """What a reader needs in order to make the edit by hand."""
        return {name: getattr(self, name) for name in ("path", "line", "kind", "before", "after")}

    @property
    def key(self) -> str:
        """Equal for equal edits of the same file."""
        return hashlib.sha256(f"{self.path}\n{self.text}".encode()).hexdigest()[:16]

    def rank(self, seed: int) -> str:
        """Orders the mutants for a sample; it does not depend on other changes in the file."""
        return hashlib.sha256(
            f"{seed}\n{self.path}\n{self.before}\n{self.after}".encode()
        ).hexdigest()


class _Edits:
    """Edits of one file, as (start, end, replacement, kind) in its UTF-8 bytes."""

    def __init__(self, source: bytes):
        self.source = source
        self.starts = [0, *(match.end() for match in re.finditer(rb"\n", source))]
        self.found: list[tuple[int, int, str, str]] = []

    def span(self, node: Any) -> tuple[int, int]:
        """The start and end of a node in the bytes of the file."""
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[
            node.end_lineno - 1
        ] + node.end_col_offset

    def text(self, node: Any) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.source[start:end].decode()

    def replace(self, node: Any, text: str, kind: str) -> None:
        """Adds the edit that replaces a node by another text."""
        self.found.append((*self.span(node), text, kind))

    def operator(self, operator: Any, left: Any, right: Any, kind: str) -> None:
        """Adds the edit that replaces the operator between two nodes, also beside brackets."""
        if type(operator) in _OPERATORS:
            old, new = _OPERATORS[type(operator)]
            between = self.span(left)[1], self.span(right)[0]
            match = re.search(
                rf"(?<!\w){re.escape(old)}(?!\w)".encode(), self.source[slice(*between)]
            )
            if match:
                self.found.append((between[0] + match.start(), between[0] + match.end(), new, kind))

    def visit(self, node: ast.AST) -> None:
        """Collects the edits of a node and of those below it."""
        edit = getattr(self, f"_{type(node).__name__.lower()}", None)
        if edit is not None:
            edit(node)
        for child in _children(node):
            self.visit(child)

    def _binop(self, node: ast.BinOp) -> None:
        self.operator(node.op, node.left, node.right, "operator")
        if type(node.op) in _OPERATORS:
            for operand in (node.left, node.right):
                text = self.text(operand)
                self.replace(
                    node, f"({text})" if isinstance(operand, _COMPOUND) else text, "operand"
                )

    def _augassign(self, node: ast.AugAssign) -> None:
        if type(node.op) in _OPERATORS:
            old, new = _OPERATORS[type(node.op)]
            start, end = self.span(node.target)[1], self.span(node.value)[0]
            place = self.source.index(f"{old}=".encode(), start, end)
            self.found.append((place, place + len(old), new, "operator"))

    def _compare(self, node: ast.Compare) -> None:
        for operator, left, right in zip(
            node.ops, [node.left, *node.comparators], node.comparators, strict=False
        ):
            self.operator(operator, left, right, "comparison")

    def _boolop(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.operator(node.op, left, right, "boolean")

    def _unaryop(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, (ast.Not, ast.USub, ast.Invert)):
            self.replace(node, self.text(node.operand), "negation")

    def _if(self, node: ast.If | ast.IfExp | ast.While) -> None:
        self.replace(node.test, f"(not ({self.text(node.test)}))", "negation")

    _ifexp = _while = _if

    def _constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.replace(node, str(not node.value), "constant")
        elif isinstance(node.value, int):
            self.replace(node, str(node.value + 1), "constant")
        elif isinstance(node.value, float):
            self.replace(node, repr(2 * node.value or 1.0), "constant")

    def _call(self, node: ast.Call) -> None:
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        if name in _SWAPS:
            end = self.span(node.func)[1]
            self.found.append((end - len(name), end, _SWAPS[name], "swap"))
        if name in _METHODS and isinstance(node.func, ast.Attribute):
            self.replace(
                node, self.text(node.args[0] if name == "dropout" else node.func.value), "call"
            )
        elif name in _FUNCTIONS and node.args:
            self.replace(node, self.text(node.args[0]), "call")
        if name in _CHECKED:
            return
        arguments = sorted([*node.args, *node.keywords], key=self.span)
        for i, argument in enumerate(arguments):
            if isinstance(argument, ast.keyword) and argument.arg is not None:
                start, end = self.span(argument)
                if i:
                    start = self.span(arguments[i - 1])[1]
                elif len(arguments) > 1:
                    end = self.span(arguments[1])[0]
                self.found.append((start, end, "", "argument"))


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The child nodes that compute something: no imports, annotations, decorators or messages."""
    silent = (ast.Import, ast.ImportFrom, ast.Raise, ast.JoinedStr)
    skipped = {"annotation", "returns", "decorator_list", "type_params", "msg"}
    if isinstance(node, ast.Call):
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        if name in _SILENT:
            skipped |= {"args", "keywords"}
        elif name in _CHECKED:
            skipped |= {"keywords"}
    for field, value in ast.iter_fields(node):
        if field not in skipped:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, silent):
                    yield child


def mutants(path: str, text: str) -> list[Mutant]:
    """Every mutant of a file, in the order of its lines."""
    source, edits = text.encode(), _Edits(text.encode())
    edits.visit(ast.parse(text))
    found = {}
    for start, end, new, kind in sorted(edits.found):
        mutated = (source[:start] + new.encode() + source[end:]).decode()
        with contextlib.suppress(SyntaxError):  # for example if a comma is left over
            ast.parse(mutated)
            found.setdefault(
                mutated, edit(path, text, mutated, source[:start].count(b"\n") + 1, kind)
            )
    return list(found.values())


def edit(path: str, text: str, mutated: str, line: int, kind: str) -> Mutant:
    """The mutant that turns a file's text into another one, from `line` on."""
    old, new = text.split("\n"), mutated.split("\n")
    alike = 0
    while alike < min(len(old), len(new)) - line + 1 and old[-1 - alike] == new[-1 - alike]:
        alike += 1
    before, after = (
        " ".join(part.strip() for part in lines[line - 1 : len(lines) - alike]).strip()
        for lines in (old, new)
    )
    return Mutant(path, line, kind, before, after, mutated)
