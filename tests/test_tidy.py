"""What the house asks of its source, checked on every file that is or may be committed. Each message says what to do."""

import ast
import re
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
TEXT = {".py", ".pyi", ".md", ".toml", ".proto", ".j2", ".html", ".css", ".js", ".sh", ".lock", ""}
CODE = ("src", "examples")

# Written so that this file does not contain what it forbids.
MARKERS = re.compile(r"(?:#|//|<!--|\{#).*\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3]) + r")\b")
MACHINE_PATHS = re.compile(r"(?<![\w.\-*/])/(?:work|root|tmp/\w+|Users/\w+|home/(?!(?:user|you|alice)\b)\w+)(?=/|\b)")
REGISTRIES = re.compile(r"(?<!emit-)(?:index[-]url|find[-]links)\b|\b[p]ypi\.|[p]ythonhosted|https?://\S+/simple\b")
EXEMPTION = re.compile(
    r"#\s*(?:noqa\b(?::\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)?|type:\s*ignore(?:\[[^\]]*\])?)(?P<reason>.*)"
)
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}


@cache
def files() -> list[Path]:
    """Every text file that git tracks or would; without git (a source archive), every one outside the ignored folders."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        names = sorted(set(listing.stdout.decode().split("\0")) - {""})
        found = [ROOT / name for name in names]
    else:
        ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
        found = [
            path
            for path in sorted(ROOT.rglob("*"))
            if not any(part in ignored or part.startswith(".venv") for part in path.relative_to(ROOT).parts)
        ]
    return [path for path in found if path.suffix in TEXT and path.is_file() and "_pb2" not in path.name]


@cache
def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def python(*folders: str) -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(text(path), filename=str(path))


def lines_with(pattern: re.Pattern[str], paths: list[Path]) -> Iterator[str]:
    for path in paths:
        content = text(path)
        if pattern.search(content):  # nearly always not: one search for the whole file is what makes this fast
            for number, line in enumerate(content.splitlines(), 1):
                if pattern.search(line):
                    yield f"{name(path)}:{number}: {line.strip()[:100]}"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def complain(found: list[str], what_to_do: str) -> None:
    if found:
        pytest.fail(what_to_do + "\n  " + "\n  ".join(found), pytrace=False)


def test_a_file_has_one_subject():
    found = [
        f"{name(path)}: {count} lines"
        for path in python(*CODE)
        if (count := len(text(path).splitlines())) > FILE_LINES_MAX
    ]
    complain(found, f"Over {FILE_LINES_MAX} lines a file has two subjects: part them.")


def test_a_function_has_one_subject():
    found = []
    for path in python(*CODE):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > FUNCTION_LINES_MAX:
                    found.append(f"{name(path)}:{node.lineno}: {node.name} has {count} lines")
    complain(found, f"Over {FUNCTION_LINES_MAX} lines a function has two subjects: part them.")


def test_no_class_name_twice():
    places = defaultdict(list)
    for path in python(*CODE):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{name(path)}:{node.lineno}")
    found = [f"{class_name}: {', '.join(where)}" for class_name, where in sorted(places.items()) if len(where) > 1]
    complain(found, "One name, one thing: rename all but one of these classes, or use the one that exists.")


def test_module_names_say_something():
    found = [
        name(path) for path in python(*CODE, "tests") if VAGUE & {*path.relative_to(ROOT).parts[:-1], path.stem.lower()}
    ]
    complain(found, "Name these after what is in them; if that cannot be said, it belongs in several places.")


def test_no_tabs():
    paths = [path for path in files() if path.suffix and path.suffix != ".lock"]
    complain(list(lines_with(re.compile("\t"), paths)), r"Use spaces, or write \t in a string:")


def test_nothing_is_left_for_later():
    complain(list(lines_with(MARKERS, files())), "Do it now, or open an issue and take the mark out:")


def test_exemptions_give_their_reason():
    found = []
    for path in python(*CODE):
        lines = text(path).splitlines()
        for number, line in enumerate(lines, 1):
            exemption = EXEMPTION.search(line)
            above = lines[number - 2].strip() if number > 1 else ""
            if (
                exemption
                and not re.search(r"\w{3}", EXEMPTION.sub(r"\g<reason>", exemption["reason"]))
                and not above.startswith("#")
            ):
                found.append(f"{name(path)}:{number}: {line.strip()[:100]}")
    complain(found, "Say why, behind the mark or in a comment above it:")


def test_nothing_of_one_machine():
    complain(
        list(lines_with(MACHINE_PATHS, files())), "Only this machine has these paths: use relative ones, or tmp_path."
    )


def test_no_registry_is_prescribed():
    complain(
        list(lines_with(REGISTRIES, files())), "Where packages come from is the user's setting: take the address out."
    )


def test_lock_holds_names_versions_and_hashes_only():
    requirement = re.compile(r"[a-z0-9._-]+==[A-Za-z0-9.!+]+(?: ; [^\\]+)? \\")
    digest = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")
    found = [
        f"requirements.lock:{number}: {line[:100]}"
        for number, line in enumerate(text(ROOT / "requirements.lock").splitlines(), 1)
        if not (requirement.fullmatch(line) or digest.fullmatch(line) or (line.startswith("#") and "/" not in line))
    ]
    complain(
        found, "Not a name with a version, a hash or a plain comment; 'make lock' writes the file as it should be:"
    )


def test_every_deciding_package_is_kept_pure():
    contracts = {
        contract["id"]: contract
        for contract in tomllib.loads(text(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    }
    layers = contracts["layers"]["layers"]
    deciding = {
        f"merit.{package}" for layer in layers[layers.index("(kernel)") :] for package in re.findall(r"\w+", layer)
    }
    there = {package for package in deciding if (ROOT / "src" / package.replace(".", "/") / "__init__.py").exists()}
    missing = sorted(there - set(contracts["purity"]["source_modules"]))
    complain(missing, "Add these to source_modules of the contract 'purity' in pyproject.toml:")
