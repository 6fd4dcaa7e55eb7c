"""What is a word, and what a query means."""

from merit.model.search import QUERY_WORDS_MAX, WORD_LENGTH_MAX, WORDS_MAX, TaskQuery, words, words_of
from merit.model.tasks import TaskState
from merit.testing.read_model_contract import a_row


def test_words_are_letters_and_digits_without_case_and_accents():
    assert words("No such file: /data/Zürich_42.BIN") == ("no", "such", "file", "data", "zurich", "42", "bin")
    assert words("Straße ﬁne Ⅳ") == ("strasse", "fine", "iv")
    assert words(" -- \t") == ()
    assert words("x" * 100) == ("x" * WORD_LENGTH_MAX,)


def test_what_is_searched_is_bounded():
    assert words_of(["b a", "a c"]) == ("b", "a", "c")
    assert len(words_of([" ".join(f"w{number}" for number in range(10 * WORDS_MAX))])) == WORDS_MAX
    assert QUERY_WORDS_MAX < WORDS_MAX


def test_every_word_begins_one_that_is_said():
    task = a_row(1, state=TaskState.DEAD, description="Nightly REPORT", error="no such file").task
    for text, found in (
        ("night", True),
        ("report file", True),
        ("such repo", True),
        ("port", False),
        ("nightly x", False),
    ):
        assert TaskQuery(words=words(text)).matches(task) is found, text
    assert TaskQuery(words=("zurich",)).matches(task, ["in Zürich"])
