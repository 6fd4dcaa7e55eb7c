"""Constructs that are often mistakes or dangers: found in the syntax tree, each by a rule with its reason."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

from .source import CHILD_FIELDS, SourceUnreadable, read_text, syntax_tree
from .tree import is_test

CONSTRUCTS_MAX = 200


@dataclass(frozen=True, slots=True)
class SuspicionRule:
    """A kind of suspicious construct; `severity` is `high`, `medium` or `low`."""

    name: str
    severity: str
    explanation: str


RULES = {
    rule.name: rule
    for rule in (
        SuspicionRule("dynamic-code", "high", "eval or exec runs whatever its string holds; parse the data instead"),
        SuspicionRule("shell-command", "high", "a shell interprets the command; pass a list of arguments instead"),
        SuspicionRule("unsafe-load", "high", "loading this format can run code that came with the data"),
        SuspicionRule("unverified-tls", "high", "the identity of the server is not checked"),
        SuspicionRule("assert-on-tuple", "high", "a tuple that is not empty is always true: this never fails"),
        SuspicionRule("hard-coded-credential", "high", "a password or key in the source; read it from the environment"),
        SuspicionRule("sql-from-strings", "medium", "SQL put together from strings; pass the values as parameters"),
        SuspicionRule("bare-except", "medium", "catches SystemExit and KeyboardInterrupt too; name the exception"),
        SuspicionRule("swallowed-exception", "medium", "every error is ignored without a trace"),
        SuspicionRule("mutable-default", "medium", "the default is made once and shared by all calls; default to None"),
        SuspicionRule("temporary-name", "medium", "another process can take the name first; use mkstemp"),
        SuspicionRule("world-writable", "medium", "every user of the machine may write to it"),
        SuspicionRule("return-in-finally", "medium", "leaving a finally block drops the exception on its way"),
        SuspicionRule("raise-not-implemented", "medium", "NotImplemented is no exception; raise NotImplementedError"),
        SuspicionRule(
            "identity-of-literal", "medium", "compares identity, which equal literals need not share; use =="
        ),
        SuspicionRule("repeated-key", "medium", "the key stands in the dictionary twice; the first value is lost"),
        SuspicionRule(
            "weak-hash", "low", "MD5 and SHA-1 do not withstand attacks; say usedforsecurity=False or change"
        ),
        SuspicionRule("none-comparison", "low", "== asks the object's own __eq__; write: is None"),
        SuspicionRule("assert-outside-tests", "low", "removed by python -O: not for checks that must happen"),
        SuspicionRule("wildcard-import", "low", "hides where names come from, and may replace others"),
    )
}


class SuspiciousConstruct(TypedDict):
    """One place: its line, the rule that it breaks, the rule's severity and why it matters."""

    line: int
    rule: str
    severity: str
    explanation: str


class SuspiciousConstructs(TypedDict):
    """What was found in a module: the first places, and how often each rule was broken in all."""

    parsed: bool
    reason: str
    constructs: list[SuspiciousConstruct]
    counts: dict[str, int]


def suspect(path: str, root: str = "") -> SuspiciousConstructs:
    """The constructs in the file at `path` (see `source.locate` for the two arguments, and for the errors)."""
    try:
        text = read_text(path, root)
    except SourceUnreadable as error:
        return SuspiciousConstructs(parsed=False, reason=str(error), constructs=[], counts={})
    return suspect_text(text, tests=is_test(path if root else path.lstrip("/")))


def suspect_text(text: str, *, tests: bool = False) -> SuspiciousConstructs:
    """The constructs in a module's text, by line; in `tests` an assertion is no finding."""
    try:
        tree = syntax_tree(text)
    except SourceUnreadable as error:
        return SuspiciousConstructs(parsed=False, reason=str(error), constructs=[], counts={})
    found = sorted(
        (line, rule)
        for line, rule in _findings(tree)
        if not (tests and rule in {"assert-outside-tests", "hard-coded-credential"})
    )
    return SuspiciousConstructs(
        parsed=True,
        reason="",
        constructs=[
            SuspiciousConstruct(
                line=line, rule=rule, severity=RULES[rule].severity, explanation=RULES[rule].explanation
            )
            for line, rule in found[:CONSTRUCTS_MAX]
        ],
        counts=dict(sorted(Counter(rule for _, rule in found).items())),
    )


def _findings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and rule of everything suspicious, in no particular order."""
    nodes = _judged(tree)
    aliases = _aliases(nodes)  # of all imports before any call, since the walk has an order of its own
    for node in nodes:
        if isinstance(node, ast.Call):
            yield from ((node.lineno, rule) for rule in _call(node, aliases))
        elif type(node) in _JUDGES:
            yield from _JUDGES[type(node)](node)


def _judged(tree: ast.Module) -> list[ast.AST]:
    """The nodes of the kinds that some rule judges."""
    found: list[ast.AST] = []
    todo: list[Any] = [tree]
    fields_of = CHILD_FIELDS.get
    while todo:
        node = todo.pop()
        kind = node.__class__
        if kind in _JUDGES or kind is ast.Call or kind is ast.Import:
            found.append(node)
        for field in fields_of(kind, ()):
            value = getattr(node, field)
            if value.__class__ is list:
                todo.extend(value)
            elif value is not None:
                todo.append(value)
    return found


def _aliases(nodes: list[ast.AST]) -> dict[str, str]:
    """What names stand for by the imports of a module, wherever in it they are."""
    aliases: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            aliases.update((one.asname, one.name) for one in node.names if one.asname)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            aliases.update((one.asname or one.name, f"{node.module}.{one.name}") for one in node.names)
    return aliases


def _import_from(node: ast.ImportFrom) -> Iterator[tuple[int, str]]:
    if any(one.name == "*" for one in node.names):
        yield node.lineno, "wildcard-import"


def _assert(node: ast.Assert) -> Iterator[tuple[int, str]]:
    on_tuple = isinstance(node.test, ast.Tuple) and bool(node.test.elts)
    yield node.lineno, "assert-on-tuple" if on_tuple else "assert-outside-tests"


def _raise(node: ast.Raise) -> Iterator[tuple[int, str]]:
    match node.exc:
        case ast.Name(id="NotImplemented") | ast.Call(func=ast.Name(id="NotImplemented")):
            yield node.lineno, "raise-not-implemented"


def _assignment(node: ast.Assign | ast.AnnAssign) -> Iterator[tuple[int, str]]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if any(_is_credential(target, node.value) for target in targets):
        yield node.lineno, "hard-coded-credential"


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Iterator[tuple[int, str]]:
    return _defaults(node.args)


def _defaults(arguments: ast.arguments) -> Iterator[tuple[int, str]]:
    for default in (*arguments.defaults, *arguments.kw_defaults):
        match default:
            case ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp():
                yield default.lineno, "mutable-default"
            case ast.Call(func=ast.Name(id="list" | "dict" | "set" | "bytearray" | "defaultdict" | "deque")):
                yield default.lineno, "mutable-default"
    named = [*arguments.posonlyargs, *arguments.args]
    with_default = named[len(named) - len(arguments.defaults) :]
    for parameter, value in (
        *zip(with_default, arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ):
        if value is not None and _is_credential(parameter, value):
            yield value.lineno, "hard-coded-credential"


def _comparison(node: ast.Compare) -> Iterator[tuple[int, str]]:
    sides = [node.left, *node.comparators]
    for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
        if isinstance(operator, ast.Eq | ast.NotEq):
            if any(isinstance(side, ast.Constant) and side.value is None for side in (left, right)):
                yield node.lineno, "none-comparison"
        elif isinstance(operator, ast.Is | ast.IsNot) and any(
            isinstance(side, ast.Constant)
            and isinstance(side.value, str | bytes | int | float)
            and not isinstance(side.value, bool)
            for side in (left, right)
        ):
            yield node.lineno, "identity-of-literal"


def _repeated_keys(node: ast.Dict) -> Iterator[tuple[int, str]]:
    seen: set[tuple[type, object]] = set()
    for key in node.keys:
        if isinstance(key, ast.Constant):
            identity = (type(key.value), key.value)
            if identity in seen:
                yield key.lineno, "repeated-key"
            seen.add(identity)


def _handler(node: ast.ExceptHandler) -> Iterator[tuple[int, str]]:
    match node.type:
        case None | ast.Name(id="Exception" | "BaseException"):
            silent = all(
                isinstance(one, ast.Pass)
                or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and one.value.value is ...)
                for one in node.body
            )
            if silent:
                yield node.lineno, "swallowed-exception"
            elif node.type is None and not _raises(node.body):
                yield node.lineno, "bare-except"


def _raises(body: list[ast.stmt]) -> bool:
    """Whether a handler raises in the end, so that what it caught is not lost."""
    return bool(body) and isinstance(body[-1], ast.Raise)


def _try(node: ast.Try | ast.TryStar) -> Iterator[tuple[int, str]]:
    """Places at which a finally block is left by return, or by break or continue of a loop outside of it."""
    todo: list[tuple[ast.AST, bool]] = [(one, False) for one in node.finalbody]
    while todo:
        one, in_loop = todo.pop()
        match one:
            case ast.Return():
                yield one.lineno, "return-in-finally"
            case ast.Break() | ast.Continue() if not in_loop:
                yield one.lineno, "return-in-finally"
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.expr():
                continue
            case _:
                inside = in_loop or isinstance(one, ast.For | ast.AsyncFor | ast.While)
                todo.extend((child, inside) for child in ast.iter_child_nodes(one))


_CREDENTIAL_NAME = re.compile(
    r"(?i)(?:^|_)(?:password|passwd|pwd|secret|api_?key|access_?key|auth_?token|private_?key)$"
)
_PLACEHOLDER = re.compile(
    r"(?i)^$|\s|^[<{$%*]|^(.)\1*$|pass|secret|key|token|example|change_?me|dummy|placeholder|your|default|test|none|auth"
)


def _is_credential(target: ast.AST, value: ast.expr | None) -> bool:
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
            pass
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            pass
        case _:
            return False
    if not (isinstance(value, ast.Constant) and isinstance(value.value, str) and _CREDENTIAL_NAME.search(name)):
        return False
    return len(value.value) >= 4 and not _PLACEHOLDER.search(value.value)


_CALLS = {
    "eval": "dynamic-code",
    "exec": "dynamic-code",
    "builtins.eval": "dynamic-code",
    "builtins.exec": "dynamic-code",
    "os.system": "shell-command",
    "os.popen": "shell-command",
    "subprocess.getoutput": "shell-command",
    "subprocess.getstatusoutput": "shell-command",
    "pickle.load": "unsafe-load",
    "pickle.loads": "unsafe-load",
    "pickle.Unpickler": "unsafe-load",
    "marshal.load": "unsafe-load",
    "marshal.loads": "unsafe-load",
    "dill.load": "unsafe-load",
    "dill.loads": "unsafe-load",
    "joblib.load": "unsafe-load",
    "shelve.open": "unsafe-load",
    "yaml.unsafe_load": "unsafe-load",
    "yaml.full_load": "unsafe-load",
    "tempfile.mktemp": "temporary-name",
    "os.tempnam": "temporary-name",
    "ssl._create_unverified_context": "unverified-tls",
    "hashlib.md5": "weak-hash",
    "hashlib.sha1": "weak-hash",
}
_SAFE_LOADERS = frozenset({"SafeLoader", "CSafeLoader", "BaseLoader", "CBaseLoader"})


def _call(call: ast.Call, aliases: dict[str, str]) -> Iterator[str]:
    """The rules that a call breaks."""
    name = _dotted(call.func, aliases)
    keywords = {one.arg: one.value for one in call.keywords}
    rule = _CALLS.get(name)
    if rule is not None and not (rule == "weak-hash" and _is_constant(keywords.get("usedforsecurity"), False)):
        yield rule
    elif name == "yaml.load":
        loader = keywords.get("Loader") or (call.args[1] if len(call.args) > 1 else None)
        if _dotted(loader, {}).rpartition(".")[2] not in _SAFE_LOADERS:
            yield "unsafe-load"
    elif name == "os.chmod" and len(call.args) > 1:
        mode = call.args[1]
        if isinstance(mode, ast.Constant) and isinstance(mode.value, int) and mode.value & 0o002:
            yield "world-writable"
    if _is_constant(keywords.get("shell"), True):
        yield "shell-command"
    if name.startswith(("requests.", "httpx.")) and _is_constant(keywords.get("verify"), False):
        yield "unverified-tls"
    if isinstance(call.func, ast.Attribute) and call.func.attr in {"execute", "executemany"} and call.args:
        match call.args[0]:
            case ast.JoinedStr(values=parts) if any(isinstance(part, ast.FormattedValue) for part in parts):
                yield "sql-from-strings"
            case ast.BinOp(left=ast.Constant(value=str()), op=ast.Mod() | ast.Add()):
                yield "sql-from-strings"
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str()), attr="format")):
                yield "sql-from-strings"
    if any(_is_credential(one, one.value) for one in call.keywords):
        yield "hard-coded-credential"


def _dotted(node: ast.expr | None, aliases: dict[str, str]) -> str:
    """`a.b.c` for such an expression, with its first part as it was imported; the empty string for any other."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    parts.append(aliases.get(node.id, node.id))
    return ".".join(reversed(parts))


def _is_constant(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


# Each is called with nodes of its own kind only. Calls are judged apart, because they need the imports.
_JUDGES: dict[type, Callable[[Any], Iterator[tuple[int, str]]]] = {
    ast.AnnAssign: _assignment,
    ast.Assert: _assert,
    ast.Assign: _assignment,
    ast.AsyncFunctionDef: _function,
    ast.Compare: _comparison,
    ast.Dict: _repeated_keys,
    ast.ExceptHandler: _handler,
    ast.FunctionDef: _function,
    ast.ImportFrom: _import_from,
    ast.Lambda: _function,
    ast.Raise: _raise,
    ast.Try: _try,
    ast.TryStar: _try,
}
