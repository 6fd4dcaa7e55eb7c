"""Size, structure and complexity of one module."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

from .source import CHILD_FIELDS, SourceUnreadable, lexemes, read_text, syntax_tree

FUNCTIONS_MAX = 10
IMPORTS_MAX = 200
COMPLEXITY_BANDS = (1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 31, 51)
"""The least complexity of each band of `SyntaxMetrics.complexity_bands`; the last one has no upper end."""


class FunctionMetrics(TypedDict):
    """One function: its qualified name, its lines, its cyclomatic complexity and how deep its blocks are nested."""

    name: str
    line: int
    line_last: int
    complexity: int
    nesting: int


class SyntaxMetrics(TypedDict):
    """The figures of one module; all zero, and `reason` in words, if it could not be parsed."""

    parsed: bool
    reason: str
    lines: int
    code_lines: int
    comment_lines: int
    blank_lines: int
    functions: int
    classes: int
    nesting_max: int
    complexity_total: int
    complexity_max: int
    complexity_bands: list[int]
    most_complex: list[FunctionMetrics]
    halstead_volume: float
    maintainability: float
    imports: list[str]


@dataclass(slots=True)
class _Scope:
    """What is counted for a function or a class body or the module while the walk is inside it."""

    name: str
    line: int
    line_last: int
    is_function: bool
    complexity: int = 1
    nesting: int = 0


def measure(path: str, root: str = "") -> SyntaxMetrics:
    """The metrics of the file at `path` (see `source.locate` for what the two arguments may be, and for the errors)."""
    try:
        text = read_text(path, root)
    except SourceUnreadable as error:
        return _unparsed(str(error))
    return measure_text(text)


def measure_text(text: str) -> SyntaxMetrics:
    """The metrics of a module's text.

    Complexity is cyclomatic (T. J. McCabe, A Complexity Measure, 1976): one, and one more for each `if`, loop,
    exception handler, condition of a comprehension, conditional expression, further operand of `and` and `or`, and
    case but the one for all the rest; a nested function counts for itself. Volume is N log2 n over N tokens of n kinds
    (M. H. Halstead, Elements of Software Science, 1977). Maintainability is the index of P. Oman and J. Hagemeister
    (1992), with the coefficients of D. Coleman et al. (1994), on the scale 0..100 that Visual Studio uses:
    (171 - 5.2 ln volume - 0.23 complexity - 16.2 ln code lines) / 1.71, each a mean per function of the module.
    """
    try:
        tree = syntax_tree(text)
    except SourceUnreadable as error:
        return _unparsed(str(error))
    scopes, imports = _walk(tree)
    functions = [scope for scope in scopes if scope.is_function]
    bands = [0] * len(COMPLEXITY_BANDS)
    for function in functions:
        bands[_band(function.complexity)] += 1
    functions.sort(key=lambda scope: (-scope.complexity, scope.line, scope.name))
    total = sum(scope.complexity for scope in functions)
    comment_lines, blank_lines, volume = _count(text)
    lines = text.count("\n") + (not text.endswith("\n") and text != "")
    code_lines = max(0, lines - comment_lines - blank_lines)
    return SyntaxMetrics(
        parsed=True,
        reason="",
        lines=lines,
        code_lines=code_lines,
        comment_lines=comment_lines,
        blank_lines=blank_lines,
        functions=len(functions),
        classes=len(scopes) - len(functions) - 1,
        nesting_max=max(scope.nesting for scope in scopes),
        complexity_total=total,
        complexity_max=functions[0].complexity if functions else 0,
        complexity_bands=bands,
        most_complex=[
            FunctionMetrics(
                name=scope.name,
                line=scope.line,
                line_last=scope.line_last,
                complexity=scope.complexity,
                nesting=scope.nesting,
            )
            for scope in functions[:FUNCTIONS_MAX]
        ],
        halstead_volume=round(volume, 1),
        maintainability=_maintainability(volume, total, code_lines, max(1, len(functions))),
        imports=sorted(imports)[:IMPORTS_MAX],
    )


def _walk(tree: ast.Module) -> tuple[list[_Scope], set[str]]:
    """The scopes of a module, itself first, and the names of the modules that it imports."""
    module = _Scope("", 1, 1, is_function=False)
    scopes = [module]
    imports: set[str] = set()
    todo: list[tuple[ast.AST, _Scope, int]] = [(node, module, 0) for node in tree.body]
    while todo:
        node, scope, depth = todo.pop()
        kind = node.__class__
        expressions: list[Any] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{scope.name}.{node.name}" if scope.name else node.name
            inner = _Scope(name, node.lineno, node.end_lineno or node.lineno, not isinstance(node, ast.ClassDef))
            scopes.append(inner)
            todo.extend([(child, inner, 0) for child in node.body])
            scope.complexity += _decisions_within([*node.decorator_list, getattr(node, "args", None)])
            continue
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imports.add("." * node.level + (node.module or ""))
        elif kind in _BLOCKS:
            depth += 1
            scope.nesting = max(scope.nesting, depth)
        if kind in _DECISIONS:
            scope.complexity += _DECISIONS[kind](node)
        for field in CHILD_FIELDS[kind]:
            value = getattr(node, field)
            if field in _STATEMENT_FIELDS:
                # The one `if` in an else is an elif, which stands as deep as its if.
                is_elif = field == "orelse" and kind is ast.If and len(value) == 1 and isinstance(value[0], ast.If)
                todo.extend([(child, scope, depth - is_elif) for child in value])
            elif value is not None:
                expressions.append(value)
        if expressions:
            scope.complexity += _decisions_within(expressions)
    return scopes, imports


def _decisions_within(todo: list[Any]) -> int:
    """The ways through the code added by expressions, given as nodes or lists of nodes; empties the list."""
    count = 0
    fields_of = CHILD_FIELDS.get
    while todo:
        node = todo.pop()
        kind = node.__class__
        if kind is list:
            todo.extend(node)
            continue
        if kind in _DECISIONS:
            count += _DECISIONS[kind](node)
        for field in fields_of(kind, ()):
            value = getattr(node, field)
            if value is not None:
                todo.append(value)
    return count


_STATEMENT_FIELDS = frozenset({"body", "orelse", "finalbody", "handlers", "cases"})
_BLOCKS = frozenset(
    {ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match}
)
_DECISIONS: dict[type, Callable[[Any], int]] = {  # each is called with nodes of its own kind only
    ast.If: lambda node: 1,
    ast.IfExp: lambda node: 1,
    ast.For: lambda node: 1,
    ast.AsyncFor: lambda node: 1,
    ast.While: lambda node: 1,
    ast.ExceptHandler: lambda node: 1,
    ast.comprehension: lambda node: 1 + len(node.ifs),
    ast.BoolOp: lambda node: len(node.values) - 1,
    ast.match_case: lambda node: 0 if node.guard is None and _matches_all(node.pattern) else 1,
}


def _matches_all(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and pattern.pattern is None


def _band(complexity: int) -> int:
    return sum(complexity >= least for least in COMPLEXITY_BANDS) - 1


def _count(text: str) -> tuple[int, int, float]:
    """Lines that hold nothing but a comment, lines that hold nothing, and Halstead's volume."""
    comments = blanks = skipped = 0
    before = "\n"
    tokens = lexemes(text)
    kinds = set(tokens)
    for token in tokens:
        if token == "\n":  # noqa: S105  # a newline, not a credential
            skipped += 1
            blanks += before == "\n"
        elif token[0] == "#":
            skipped += 1
            comments += before == "\n"
        elif token == "\\\n":  # noqa: S105  # a joined line, not a credential
            skipped += 1
        before = token
    kinds.discard("\n")
    kinds.discard("\\\n")
    vocabulary = sum(kind[0] != "#" for kind in kinds)
    volume = (len(tokens) - skipped) * math.log2(vocabulary) if vocabulary else 0.0
    return comments, blanks, volume


def _maintainability(volume: float, complexity: int, code_lines: int, functions: int) -> float:
    if not code_lines:
        return 100.0
    index = (
        171
        - 5.2 * math.log(max(1.0, volume / functions))
        - 0.23 * complexity / functions
        - 16.2 * math.log(max(1.0, code_lines / functions))
    )
    return round(min(100.0, max(0.0, index / 1.71)), 1)


def _unparsed(reason: str) -> SyntaxMetrics:
    return SyntaxMetrics(
        parsed=False,
        reason=reason,
        lines=0,
        code_lines=0,
        comment_lines=0,
        blank_lines=0,
        functions=0,
        classes=0,
        nesting_max=0,
        complexity_total=0,
        complexity_max=0,
        complexity_bands=[0] * len(COMPLEXITY_BANDS),
        most_complex=[],
        halstead_volume=0.0,
        maintainability=0.0,
        imports=[],
    )
