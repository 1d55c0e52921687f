"""The analysis of the demo against sources counted by hand."""

import json
import pickle
from pathlib import Path

import pytest
from plait.cli.code_report import MIN_DUPLICATE_PARTS, FileReport, analyse_file, summarise


@pytest.fixture
def analyse(tmp_path):
    """Analyse a source given as text or bytes."""

    def analyse(source: str | bytes, name: str = "some.py") -> FileReport:
        path = Path(tmp_path, name)
        path.write_bytes(source if isinstance(source, bytes) else source.encode())
        return analyse_file(str(path))

    return analyse


def complexity_of(analyse, body: str) -> int:
    """Analyse a function `f` with the given body, one statement a line, indented relative to it."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    [row] = [r for r in analyse(f"def f(a, b, c):\n{lines}")["functions"] if r[0] == "f"]
    return row[3]


@pytest.mark.parametrize(
    ("body", "complexity"),
    [
        ("pass", 1),
        ("if a: b", 2),
        ("if a: b\nelif b: c\nelse: a", 3),
        ("return b if a else c", 2),
        ("for x in a: b\nelse: c", 2),
        ("while a: b", 2),
        ("try: a\nexcept OSError: b\nexcept ValueError: c\nelse: a\nfinally: b", 3),
        ("with a as b: c", 1),
        ("assert a", 1),
        ("return a and b", 2),
        ("return a and b and c", 3),
        ("return a and b or c", 3),
        ("if a and not b: c", 3),
        ("return [x for x in a]", 2),
        ("return {x: y for x in a if b if c for y in x}", 5),
        ("return lambda x: x if a else b", 2),
        ("match a:\n  case 1: b\n  case [x, y]: c\n  case _: a", 3),
        ("match a:\n  case 1 | 2 | 3: b\n  case x if x > b: c", 5),
        ("def g():\n  if a: b\n  return [x for x in b]\nreturn g", 1),
        ("class C:\n  x = 1 if a else 2\nreturn C", 1),
    ],
)
def test_complexity_is_counted_as_documented(analyse, body, complexity):
    assert complexity_of(analyse, body) == complexity


def test_the_decisions_of_an_async_function_count(analyse):
    source = "async def f(a):\n    async for x in a:\n        if x: await x\n"
    assert analyse(source)["functions"][0][3] == 3


SMALL = '''\
"""A module."""
import os

class A:
    def one(self):
        return 1

    class B:
        def two(self):
            def three():
                pass

            return three

if os.name == "posix":
    def four(): pass
else:
    try:
        async def five():
            pass
    finally:
        pass
match os.name:
    case "nt":
        def six(): pass
'''


def test_a_small_file(analyse):
    report = analyse(SMALL)
    assert report["error"] == ""
    assert (report["lines"], report["classes"]) == (25, 2)
    assert [row[:3] for row in report["functions"]] == [
        ("A.one", 5, 2),
        ("A.B.two", 9, 5),
        ("A.B.two.three", 10, 2),
        ("four", 16, 1),
        ("five", 19, 2),
        ("six", 25, 1),
    ]
    assert report["longest"] == 5
    assert report["complexity"] == 6


def test_the_lines_of_a_function_are_from_def_to_its_last(analyse):
    source = "@decorator\ndef f():\n    a = (\n        1\n    )\n\n# after\n"
    assert analyse(source)["functions"][0][:3] == ("f", 2, 4)


def test_an_empty_file(analyse):
    report = analyse("")
    assert (report["error"], report["lines"], report["longest"]) == ("", 0, 0)
    assert report["functions"] == []


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"x = '\xff'\n", "SyntaxError"),
        (b"# coding: no-such-encoding\n", "SyntaxError"),
        (b"def f(:\n", "SyntaxError"),
        (b"x = 1\0\n", ("SyntaxError", "ValueError")),
        (b"(" * 5000, ("SyntaxError", "MemoryError")),
    ],
)
def test_a_file_that_does_not_parse_or_decode_is_skipped(analyse, source, error):
    report = analyse(source)
    assert report["error"] in error
    assert (report["lines"], report["functions"]) == (0, [])
    assert summarise([report, analyse("x = 1\n")])["skipped"] == 1


def test_a_file_that_cannot_be_read_is_skipped(tmp_path):
    assert analyse_file(str(tmp_path / "none.py"))["error"] == "FileNotFoundError"


def test_a_declared_encoding_is_honoured(analyse):
    report = analyse("# coding: latin-1\ndef f(): return 'é'\n".encode("latin-1"))
    assert report["error"] == ""


def test_a_report_is_of_builtin_types_and_equal_to_its_copies(analyse):
    report = analyse(SMALL)
    assert type(report) is dict
    assert pickle.loads(pickle.dumps(report)) == report
    assert json.loads(json.dumps(report)) == {
        **report,
        "functions": [list(row) for row in report["functions"]],
    }


ORIGINAL = '''\
def total(rows, limit):
    """Sum up."""
    result = 0
    for row in rows:
        if row.price > limit and row.valid:
            result += row.price * 2
        else:
            print("skipped", row, sep=", ")
    for row in rows:
        row.close()
        row.other.clear(limit)
        row.log.write("done", limit)
    return [result, limit, rows]
'''


def fingerprint(analyse, source: str) -> str:
    return analyse(source)["functions"][0][4]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("total", "sum_up"),
        ("rows", "items"),
        ("limit", "most"),
        ('    """Sum up."""\n', ""),
        ("Sum up", "Another text"),
        ("* 2", "* 3"),
        ("skipped", "left out"),
        ("print", "show"),
    ],
)
def test_names_constants_and_docstrings_do_not_make_a_difference(analyse, old, new):
    changed = ORIGINAL.replace(old, new)
    assert changed != ORIGINAL
    assert fingerprint(analyse, changed) == fingerprint(analyse, ORIGINAL) != ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("close", "open"),  # an attribute
        ("sep=", "end="),  # the keyword of a call
        ("* 2", "+ 2"),
        ("* 2", "* 2.0"),  # the type of a constant
        ("return [result, limit, rows]", "return [result, rows, limit]"),
        ("return [result, limit, rows]", "return [result, limit, limit]"),
        ("return [result, limit, rows]", "return [[result], limit, rows]"),
        ("        else:\n            print", "        print"),
        ("def", "async def"),
    ],
)
def test_what_a_function_does_makes_a_difference(analyse, old, new):
    changed = ORIGINAL.replace(old, new)
    assert changed != ORIGINAL
    assert fingerprint(analyse, changed) not in ("", fingerprint(analyse, ORIGINAL))


def test_a_small_function_is_not_compared(analyse):
    assert fingerprint(analyse, "def f(a):\n    return a\n") == ""
    assert fingerprint(analyse, f"def f(a):\n    return {[0] * MIN_DUPLICATE_PARTS}\n") != ""


def test_the_summary(analyse):
    other = ORIGINAL.replace("total", "other").replace("rows", "things")
    reports = [
        analyse(ORIGINAL, "a.py"),
        analyse(f"class C: pass\n{other}\ndef f(x):\n    if x: pass\n", "b.py"),
        analyse("def", "c.py"),
    ]
    a, b, _ = (report["path"] for report in reports)
    summary = summarise(reports)
    assert summary["files"] == 2
    assert summary["skipped"] == 1
    assert summary["lines"] == 13 + 17
    assert summary["functions"] == 3
    assert summary["classes"] == 1
    assert summary["complexity"] == 5 + 5 + 2
    assert summary["longest"] == [(a, 1, "total", 13)]
    assert summary["most_complex"] == [(a, 1, "total", 5), (b, 2, "other", 5), (b, 16, "f", 2)]
    assert (summary["duplicate_groups"], summary["duplicated_functions"]) == (1, 2)
    assert summary["duplicates"] == [
        {"lines": 13, "places": [(a, 1, "total", 13), (b, 2, "other", 13)]}
    ]


def test_the_summary_lists_ten_functions(analyse):
    source = "".join(f"def f{n}():\n" + "    if 1: pass\n" * n for n in range(1, 15))
    names = [place[2] for place in summarise([analyse(source)])["most_complex"]]
    assert names == [f"f{n}" for n in range(14, 4, -1)]


def test_a_deeply_nested_file_does_not_depend_on_the_stack(analyse):
    source = "def f(a):\n    return " + "-" * 500 + "a\n"

    def analyse_deep(depth: int) -> FileReport:
        return analyse_deep(depth - 1) if depth else analyse(source)

    assert analyse_deep(600) == analyse(source)
