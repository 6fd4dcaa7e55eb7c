import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.inspection.source import PathRefused, SourceUnreadable, decode, lexemes, locate, read_text, syntax_tree
from examples.inspection.tree import (
    ListedFile,
    SourceTree,
    TreeNotListed,
    is_test,
    list_tree,
    paths_in,
    portions_of,
)


@pytest.fixture
def tree(tmp_path):
    for path, content in {
        "b.py": "b = 1\n",
        "a/z.py": "",
        "a/a.py": "x = 1\n",
        "a.py": "",
        "notes.txt": "no source",
        ".hidden/x.py": "",
        "__pycache__/b.py": "",
        "vendor/v.py": "",
        "big.py": "#" * 200,
        "env/pyvenv.cfg": "",
        "env/lib.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    (tmp_path / "link.py").symlink_to("b.py")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.py")
    return tmp_path


def test_the_list_is_sorted_and_says_what_was_left_out(tree):
    listed = list_tree(tree, file_bytes_max=100)
    assert [file.path for file in listed.files] == ["a.py", "a/a.py", "a/z.py", "b.py"]
    assert [file.size_bytes for file in listed.files] == [0, 6, 0, 6]
    assert {one.path: one.reason for one in listed.skipped} == {
        ".hidden": "hidden directory",
        "big.py": "200 bytes, more than the 100 that are inspected",
        "env": "virtual environment",
        "link.py": "symbolic link",
        "pipe.py": "not a regular file",
        "vendor": "vendored code",
    }
    assert list_tree(tree, file_bytes_max=100) == listed


def test_portions_are_of_one_directory_and_bounded(tree):
    listed = list_tree(tree, file_bytes_max=100)
    assert [(one.label, one.directory, one.names) for one in portions_of(listed)] == [
        ("./", ".", ("a.py", "b.py")),
        ("a/", "a", ("a.py", "z.py")),
    ]
    assert [(one.label, one.names) for one in portions_of(listed, files_max=1)] == [
        ("./", ("a.py",)),
        ("a/", ("a.py",)),
        ("a/+1", ("z.py",)),
        ("./+1", ("b.py",)),
    ]


@given(st.sets(st.text("a/+1", min_size=1).map(lambda path: f"x{path}x.py".replace("//", "/")), max_size=40))
def test_each_file_is_in_one_portion(paths):
    made = SourceTree("/", tuple(ListedFile(path, 0) for path in sorted(paths)), ())
    portions = portions_of(made, files_max=3)
    assert sorted(path for portion in portions for path in paths_in(portion)) == sorted(paths)
    assert len({portion.label for portion in portions}) == len(portions)
    assert all(1 <= len(portion.names) <= 3 for portion in portions)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system refuses such names")
def test_a_name_that_is_not_unicode_is_left_out(tree):
    (tree / os.fsdecode(b"caf\xe9.py")).write_text("")
    (tree / os.fsdecode(b"dir\xe9")).mkdir()
    skipped = {one.path: one.reason for one in list_tree(tree).skipped}
    assert skipped["caf\\udce9.py"] == skipped["dir\\udce9"] == "name is not valid Unicode"


def test_what_is_no_tree_or_too_large_is_refused(tree):
    with pytest.raises(TreeNotListed, match=r"root: .*b\.py is not a directory"):
        list_tree(tree / "b.py")
    with pytest.raises(TreeNotListed, match="more than 2 files"):
        list_tree(tree, files_max=2)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("test/x.py", True),
        ("a/tests/x.py", True),
        ("idle_test/x.py", True),
        ("test_a.py", True),
        ("a/b_test.py", True),
        ("a/conftest.py", True),
        ("contest.py", False),
        ("latest/a.py", False),
        ("unittest/case.py", False),
    ],
)
def test_tests_are_known_by_their_paths(path, expected):
    assert is_test(path) is expected


def test_a_path_may_not_lead_out_of_the_root(tree):
    inner = tree / "a"
    (inner / "out.py").symlink_to(tree / "b.py")
    assert locate("a.py", str(inner)) == (inner / "a.py").resolve()
    assert locate(str(inner / "a.py")) == (inner / "a.py").resolve()
    for path, root in [
        ("../b.py", inner),
        ("out.py", inner),
        (str(tree / "b.py"), inner),
        ("a.py", ""),
        ("", inner),
        ("a\0.py", inner),
        ("pipe.py", tree),
    ]:
        with pytest.raises(PathRefused, match="path:"):
            locate(path, str(root))
    with pytest.raises(FileNotFoundError):
        locate("gone.py", str(inner))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe", "encoding: invalid or missing encoding declaration"),
        (b"a = 1\n\nb = 2\n" + b"#" * 9000 + b"\xff", "not valid utf-8 at byte 9013"),
        (b"# coding: uft-8\n", "encoding: unknown encoding: uft-8"),
        (b"# coding: rot13\nnffreg 1", "encoding"),
        (b"# coding: zlib\n", "encoding"),
        (b"\xef\xbb\xbf# coding: latin-1\n", "encoding"),
    ],
)
def test_what_cannot_be_decoded_says_why(content, reason):
    with pytest.raises(SourceUnreadable, match=reason):
        decode(content)


def test_text_is_decoded_as_python_does(tmp_path):
    (tmp_path / "l.py").write_bytes(b"# coding: latin-1\r\ns = '\xe9'\r")
    assert read_text("l.py", str(tmp_path)) == "# coding: latin-1\ns = 'é'\n"
    assert decode(b"\xef\xbb\xbfa = 1") == "a = 1"


@pytest.mark.parametrize(
    "text", ["print 'x'", "a = 1\0", "(" * 5000, "-" * 100_000 + "1", "'\ud800'", "def f(:", "0777", "é€"]
)
def test_what_cannot_be_parsed_says_why(text):
    with pytest.raises(SourceUnreadable) as refused:
        syntax_tree(text)
    str(refused.value).encode()
    assert 0 < len(str(refused.value)) <= 300


def test_the_parser_warns_nobody(recwarn):
    syntax_tree("s = '\\d'; 1or 2")
    assert not recwarn.list


@given(st.text(alphabet=st.sampled_from("ab1_.'\"\\\n#rf=!*/()[]: é\t"), max_size=80))
def test_tokens_are_found_in_any_text_and_lose_nothing(text):
    joined = "".join(lexemes(text))
    assert "".join(joined.split()) == "".join(text.split())
    assert sum(token.count("\n") for token in lexemes(text)) == text.count("\n")


def test_tokens_are_those_of_python():
    text = 'async def f(x: int = 0x1F) -> str:  # why\n    return rb"""a\n"b\\"""" + x**-1.5e-3 != 1_0j\nx = a.b...\\\n\'\''
    assert lexemes(text) == [
        *["async", "def", "f", "(", "x", ":", "int", "=", "0x1F", ")", "->", "str", ":", "# why", "\n"],
        *["return", 'rb"""a\n"b\\""""', "+", "x", "**", "-", "1.5e-3", "!=", "1_0j", "\n"],
        *["x", "=", "a", ".", "b", "...", "\\\n", "''"],
    ]
