"""A report on Python source: size, complexity and duplicated functions.

This is ordinary Python, written as if concurrency did not exist: one file in, one report out, then
a summary of all reports. `python -m plait demo` runs it on pools of every kind, and takes it as it
is.

A report is made of plain dicts, lists, tuples, strings and integers, with its shape given by
`TypedDict` (a dict at run time). A file of the standard library has dozens of functions, so their
rows are most of what travels between workers, and builtin types are what every way of carrying
objects carries best: no class to look up by name, nothing to construct, and each is equal to its
copy.

**Complexity** is the cyclomatic complexity of McCabe (1976), for each function 1 plus its
decisions:

- `if`, `elif`, `x if c else y`, `for`, `while`, `except`: one each;
- a comprehension: one for each `for` and one for each `if`;
- `and`, `or`, and `|` in a pattern: one for each operand after the first, since McCabe counts the
  conditions of a compound predicate;
- `case`: one, unless its pattern matches anything; its guard: one.

`else`, `finally`, `with` and `assert` count nothing. A function inside a function, or in a class
inside one, has a count of its own; a lambda or a comprehension counts where it stands.

**Duplicates** are functions whose syntax trees are equal once normalised: docstrings are dropped;
each name of a variable, parameter, function or class becomes a number, the same wherever the
function uses that name; each constant becomes its type. Attribute names, keywords of calls and
names of imported modules stay, since they say what is done to whom. Functions with fewer than
`MIN_DUPLICATE_PARTS` parts in that tree are too small to compare.
"""

import ast
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypedDict

MIN_DUPLICATE_PARTS = 100
"""About six short statements: shorter functions look alike by chance."""

TOP = 10
"""How many functions, and how many groups of duplicates, a summary lists."""

type Function = ast.FunctionDef | ast.AsyncFunctionDef
type Definition = Function | ast.ClassDef

type FunctionRow = tuple[str, int, int, int, str]
"""Qualified name, first line, number of lines, complexity, fingerprint ("" for a small
function)."""

type Place = tuple[str, int, str, int]
"""Path, first line, qualified name of a function, and a figure about it."""


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)

_BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")
"""The fields in which statements, and so functions and classes, can stand."""

_DECISIONS: dict[type[ast.AST], Callable[[Any], int]] = {
    ast.If: lambda node: 1,
    ast.IfExp: lambda node: 1,
    ast.For: lambda node: 1,
    ast.AsyncFor: lambda node: 1,
    ast.While: lambda node: 1,
    ast.ExceptHandler: lambda node: 1,
    ast.comprehension: lambda node: 1 + len(node.ifs),
    ast.BoolOp: lambda node: len(node.values) - 1,
    ast.MatchOr: lambda node: len(node.patterns) - 1,
    ast.match_case: lambda node: (not _matches_anything(node.pattern)) + (node.guard is not None),
}
"""What each kind of node adds to the complexity of its function."""

_RENAMED = {
    "Name": "id",
    "arg": "arg",
    "alias": "asname",
    "FunctionDef": "name",
    "AsyncFunctionDef": "name",
    "ClassDef": "name",
    "ExceptHandler": "name",
    "MatchAs": "name",
    "MatchStar": "name",
    "MatchMapping": "rest",
    "TypeVar": "name",
    "TypeVarTuple": "name",
    "ParamSpec": "name",
}
"""The field of each kind of node that holds a name of the author's choice."""

_IGNORED = frozenset({"ctx", "type_comment"})
"""Fields that say nothing new: a name's place implies its context."""

_LAYOUTS: dict[type[ast.AST], tuple[str, tuple[str, ...], str]] = {
    kind: (
        kind.__name__,
        tuple(field for field in kind._fields if field not in _IGNORED),
        _RENAMED.get(kind.__name__, ""),
    )
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}
"""The name of each kind of node, its fields to compare, and which of them to rename ("": none)."""


class FileReport(TypedDict):
    """What `analyse_file` found in one file."""

    path: str
    error: str  # why the file was skipped; "" if it was not
    lines: int
    classes: int
    complexity: int  # the sum over the functions
    longest: int  # lines of the longest function
    functions: list[FunctionRow]


class DuplicateGroup(TypedDict):
    """Functions that are equal once normalised."""

    lines: int  # of the longest of them
    places: list[Place]  # the figure is the number of lines


class Summary(TypedDict):
    """What `summarise` found in all reports."""

    files: int
    skipped: int
    lines: int
    functions: int
    classes: int
    complexity: int
    longest: list[Place]  # the figure is the number of lines; at most one
    most_complex: list[Place]  # the figure is the complexity; at most TOP
    duplicated_functions: int
    duplicate_groups: int
    duplicates: list[DuplicateGroup]  # those with most lines; at most TOP


def analyse_file(path: str) -> FileReport:
    """Report on the file at `path`.

    A file that cannot be read, decoded or parsed gives a report with `error` set and no figures.
    """
    report = FileReport(
        path=path, error="", lines=0, classes=0, complexity=0, longest=0, functions=[]
    )
    try:
        with open(path, "rb") as file:
            source = file.read()
        # Bytes, not text: the parser then honours the file's own encoding declaration.
        tree = ast.parse(source, path)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # ValueError: a null byte. MemoryError is also how the parser says "nested too deeply".
        report["error"] = type(error).__name__
        return report
    report["lines"] = len(source.splitlines())
    report["classes"], rows = _describe(tree)
    report["functions"] = rows
    report["complexity"] = sum(row[3] for row in rows)
    report["longest"] = max((row[2] for row in rows), default=0)
    return report


def summarise(reports: Iterable[FileReport]) -> Summary:
    """Sum up `reports`. Equal reports in the same order give equal summaries."""
    kept = []
    skipped = 0
    for report in reports:
        if report["error"]:
            skipped += 1
        else:
            kept.append(report)
    by_length: list[Place] = []
    by_complexity: list[Place] = []
    alike: dict[str, list[Place]] = defaultdict(list)
    for report in kept:
        path = report["path"]
        for name, line, lines, complexity, fingerprint in report["functions"]:
            by_length.append((path, line, name, lines))
            by_complexity.append((path, line, name, complexity))
            if fingerprint:
                alike[fingerprint].append((path, line, name, lines))
    groups = [places for places in alike.values() if len(places) > 1]
    return Summary(
        files=len(kept),
        skipped=skipped,
        lines=sum(report["lines"] for report in kept),
        functions=len(by_length),
        classes=sum(report["classes"] for report in kept),
        complexity=sum(report["complexity"] for report in kept),
        longest=_largest(by_length, 1),
        most_complex=_largest(by_complexity, TOP),
        duplicated_functions=sum(map(len, groups)),
        duplicate_groups=len(groups),
        duplicates=_largest_groups(groups),
    )


def _largest(places: list[Place], count: int) -> list[Place]:
    return sorted(places, key=lambda place: (-place[3], place))[:count]


def _largest_groups(groups: list[list[Place]]) -> list[DuplicateGroup]:
    """Return the `TOP` groups with most lines in all, each with its places in order."""
    found = [
        DuplicateGroup(lines=max(place[3] for place in places), places=sorted(places))
        for places in groups
    ]
    found.sort(key=lambda group: (-sum(place[3] for place in group["places"]), group["places"]))
    return found[:TOP]


def _describe(tree: ast.Module) -> tuple[int, list[FunctionRow]]:
    """Count the classes and describe the functions of a module, whatever they are nested in."""
    # Lists of nodes to visit instead of recursion, here and below: whether a deeply nested file can
    # be analysed must not depend on how deep the caller's own stack is.
    classes = 0
    rows: list[FunctionRow] = []
    pending: list[tuple[ast.AST, str]] = [(tree, "")]
    while pending:
        scope, name = pending.pop()
        if isinstance(scope, ast.ClassDef):
            classes += 1
        elif isinstance(scope, _FUNCTIONS):
            lines = (scope.end_lineno or scope.lineno) - scope.lineno + 1
            decisions, fingerprint = _measure(scope)
            rows.append((name, scope.lineno, lines, 1 + decisions, fingerprint))
        prefix = f"{name}." if name else ""
        pending.extend((inner, prefix + inner.name) for inner in _definitions_in(scope))
    rows.sort(key=lambda row: (row[1], row[0]))
    return classes, rows


def _definitions_in(scope: ast.AST) -> Iterator[Definition]:
    """List the functions and classes right inside `scope`, those under its `if`, `try` …
    included."""
    pending = [scope]
    while pending:
        node = pending.pop()
        for field in _BLOCKS:
            block = getattr(node, field, None)
            if not isinstance(block, list):  # none, or that of `x if c else y`
                continue
            for statement in block:
                if isinstance(statement, _DEFINITIONS):
                    yield statement
                else:
                    pending.append(statement)


def _measure(function: Function) -> tuple[int, str]:
    """Return the decisions of `function` itself, and the hash of its normalised tree ("": too
    small)."""
    decisions = 0
    parts: list[str] = []
    numbers: dict[str, str] = {}
    # Each node with whether it is the function's own, not that of a function or class inside.
    pending: list[tuple[ast.AST, bool]] = [(function, True)]
    while pending:
        node, own = pending.pop()
        kind = type(node)
        if kind in _DECISIONS:
            if own:
                decisions += _DECISIONS[kind](node)
        elif kind in _DEFINITIONS:
            own = node is function
        for child in _normalise(node, parts, numbers):
            pending.append((child, own))
    if len(parts) < MIN_DUPLICATE_PARTS:
        return decisions, ""
    return decisions, hashlib.blake2b(" ".join(parts).encode(), digest_size=8).hexdigest()


def _normalise(node: ast.AST, parts: list[str], numbers: dict[str, str]) -> list[ast.AST]:
    """Append to `parts` the kind of `node` and a word for each of its fields; return its children.

    The words say which fields have children and how many, so that the parts of a tree, node by
    node, can be those of no other.
    """
    if isinstance(node, ast.Constant):
        parts.append(type(node.value).__name__)
        return []
    children: list[ast.AST] = []
    name, fields, renamed = _LAYOUTS[type(node)]
    parts.append(name)
    for field in fields:
        value = getattr(node, field, None)
        if isinstance(value, ast.AST):
            parts.append("+")
            children.append(value)
        elif isinstance(value, list):
            if field == "body" and _has_docstring(node):
                value = value[1:]
            parts.append(str(len(value)))
            children.extend(item for item in value if isinstance(item, ast.AST))
        elif field == renamed and value is not None:
            parts.append(numbers.setdefault(value, f"#{len(numbers)}"))
        else:
            parts.append(str(value))
    return children


def _matches_anything(pattern: ast.pattern) -> bool:
    return isinstance(pattern, ast.MatchAs) and pattern.pattern is None


def _has_docstring(node: ast.AST) -> bool:
    if isinstance(node, _DEFINITIONS):
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())), *_]:
                return True
    return False
