"""Which public names of a module are documented and annotated."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypedDict

from .source import SourceUnreadable, read_text, syntax_tree

UNDOCUMENTED_MAX = 50

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class UndocumentedName(TypedDict):
    """A public name without a docstring: its qualified name, the line of its definition, `class` or `function`."""

    name: str
    line: int
    kind: str


class DocumentationCoverage(TypedDict):
    """How much of a module's public face is documented; all zero, and `reason` in words, if it was not parsed.

    `modules` is 1, or 0 for a file without any statement, so that the figures of many files can be added up.
    """

    parsed: bool
    reason: str
    modules: int
    modules_documented: int
    classes: int
    classes_documented: int
    functions: int
    functions_documented: int
    parameters: int
    parameters_annotated: int
    returns: int
    returns_annotated: int
    undocumented: list[UndocumentedName]


def cover(path: str, root: str = "") -> DocumentationCoverage:
    """The coverage of the file at `path` (see `source.locate` for the two arguments, and for the errors)."""
    try:
        text = read_text(path, root)
    except SourceUnreadable as error:
        return _coverage(str(error))
    return cover_text(text)


def cover_text(text: str) -> DocumentationCoverage:
    """The coverage of a module's text.

    Public is what `__all__` lists if it is a plain list, else every name without a leading underscore, in modules and
    in public classes (PEP 8). Overloads, the setters of properties and special methods (`__len__`) need no docstring
    of their own and are left out. The first parameter of a method needs no annotation.
    """
    try:
        tree = syntax_tree(text)
    except SourceUnreadable as error:
        return _coverage(str(error))
    coverage = _coverage("")
    if tree.body:
        coverage["modules"] = 1
        coverage["modules_documented"] = int(_has_docstring(tree))
    for name, node, in_class in _public(tree):
        documented = _has_docstring(node)
        if isinstance(node, ast.ClassDef):
            coverage["classes"] += 1
            coverage["classes_documented"] += documented
        else:
            coverage["functions"] += 1
            coverage["functions_documented"] += documented
            _count_annotations(node, coverage, in_class)
        if not documented:
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            coverage["undocumented"].append(UndocumentedName(name=name, line=node.lineno, kind=kind))
    coverage["undocumented"].sort(key=lambda one: (one["line"], one["name"]))
    del coverage["undocumented"][UNDOCUMENTED_MAX:]
    return coverage


def _public(tree: ast.Module) -> Iterator[tuple[str, Definition, bool]]:
    """Every public class and function: qualified name, node, and whether it stands in a class."""
    listed = _listed_names(tree)
    todo: list[tuple[list[ast.stmt], str, bool]] = [(tree.body, "", False)]
    while todo:
        body, prefix, in_class = todo.pop()
        for node in body:
            if isinstance(node, Definition):
                top = not prefix
                if node.name not in listed if top and listed is not None else node.name.startswith("_"):
                    continue
                name = prefix + node.name
                if isinstance(node, ast.ClassDef):
                    todo.append((node.body, name + ".", True))
                elif _is_variant(node):
                    continue
                yield name, node, in_class
            else:  # a definition may depend on a condition, an import that fails, or a version
                for field in ("body", "orelse", "finalbody"):
                    inner = getattr(node, field, None)
                    if inner:
                        todo.append((inner, prefix, in_class))
                todo.extend((handler.body, prefix, in_class) for handler in getattr(node, "handlers", ()))


def _listed_names(tree: ast.Module) -> frozenset[str] | None:
    """What `__all__` lists; None if there is none, or if it is computed and so cannot be known without running it."""
    names: set[str] = set()
    found = False
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                names.clear()
            case ast.AugAssign(target=ast.Name(id="__all__"), value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value):
                names.clear()
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="__all__")))):
                return None
            case _:
                continue
        if not isinstance(value, ast.List | ast.Tuple):
            return None
        found = True
        for element in value.elts:
            if not (isinstance(element, ast.Constant) and isinstance(element.value, str)):
                return None
            names.add(element.value)
    return frozenset(names) if found else None


def _is_variant(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function only adds to one of the same name: an overload, or a property's setter or deleter."""
    for decorator in node.decorator_list:
        match decorator:
            case ast.Name(id="overload") | ast.Attribute(attr="overload" | "setter" | "deleter"):
                return True
    return False


def _count_annotations(
    node: ast.FunctionDef | ast.AsyncFunctionDef, coverage: DocumentationCoverage, in_class: bool
) -> None:
    arguments = node.args
    parameters = [*arguments.posonlyargs, *arguments.args]
    if in_class and not any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list):
        parameters = parameters[1:]
    parameters += arguments.kwonlyargs
    parameters += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    coverage["parameters"] += len(parameters)
    coverage["parameters_annotated"] += sum(one.annotation is not None for one in parameters)
    coverage["returns"] += 1
    coverage["returns_annotated"] += node.returns is not None


def _has_docstring(node: ast.Module | Definition) -> bool:
    """Whether the first statement is a string that says something (`ast.get_docstring` would also clean it up)."""
    match node.body:
        case [ast.Expr(value=ast.Constant(value=str(text))), *_]:
            return bool(text.strip())
    return False


def _coverage(reason: str) -> DocumentationCoverage:
    return DocumentationCoverage(
        parsed=not reason,
        reason=reason,
        modules=0,
        modules_documented=0,
        classes=0,
        classes_documented=0,
        functions=0,
        functions_documented=0,
        parameters=0,
        parameters_annotated=0,
        returns=0,
        returns_annotated=0,
        undocumented=[],
    )
