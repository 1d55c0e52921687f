"""Functions of every source: an unguarded script, -c, stdin, both REPLs, a notebook's cells.

The same statements are given to each, and must print the same. None of them is ever run again by a
worker, and what was defined where is told by tracebacks as far as Python knows it.
"""

import ast
import os
import pty
import re
import select
import subprocess
import sys
import time

import helpers
import pytest

# For a REPL, blocks end with an empty line, and there is no other one.
STATEMENTS = """\
import enum, functools, json, plait, traceback
from dataclasses import dataclass
print("told: once")
pool = plait.Pool(1, kind=KIND)
scale = 3
def times(x):
    return x * scale

print("told:", pool.submit(times, 2).result(), list(pool.map(lambda x: x + scale, range(3))))
scale = 5
print("told:", pool.submit(times, 2).result())
def times(x):
    return json.dumps({"redefined": x})

print("told:", pool.submit(times, 2).result())
@dataclass
class Pair:
    left: int
    right: int = 0
    def swapped(self):
        return Pair(self.right, self.left)
    class Error(Exception):
        pass

class Colour(enum.Enum):
    RED = 1

swapped = pool.submit(Pair(1, 2).swapped).result()
red, = pool.submit(lambda: [Colour.RED]).result()
print("told:", swapped, type(swapped) is Pair, red is Colour.RED)
def adder(n):
    def add(x, /, *, more=0):
        return x + n + more
    return add

partly = functools.partial(adder(5), 1)
print("told:", pool.submit(adder(1), 2, more=3).result(), pool.submit(partly).result())
def traced(fn):
    @functools.wraps(fn)
    def inner(*args):
        return fn.__name__, fn(*args)
    return inner

@traced
def decorated(x):
    return x * scale

print("told:", pool.submit(decorated, 2).result(), pool.submit(decorated.__wrapped__, 1).result())
def squares(n):
    for x in range(n):
        yield x * x

print("told:", pool.submit(squares, 4).result(), list(pool.map(squares, [1, 2])))
class Counter:
    total = 0
    def __init__(self, start):
        self.start = start
    def __call__(self, x):
        return self.start + x
    @classmethod
    def made(cls, x):
        return cls(x).start
    @staticmethod
    def plain(x):
        return -x

print("told:", *(pool.submit(fn, 1).result() for fn in (Counter(6), Counter.made, Counter.plain)))
def fails(x):
    raise Pair.Error("reason", x)  # the very line

try:
    pool.submit(fails, 1).result()
except Pair.Error as error:
    text = "".join(traceback.format_exception(error))

print("told:", "in fails" in text, error_line in text if KNOWN else "unknown")
pool.shutdown()
"""

TOLD = [
    "once",
    "6 [3, 4, 5]",
    "10",
    '{"redefined": 2}',
    "Pair(left=2, right=1) True True",
    "6 6",
    "('decorated', 10) 5",
    "[0, 1, 4, 9] [[0], [0, 1]]",
    "7 1 -1",
]


def statements(kind: str, known: bool) -> str:
    text = STATEMENTS.replace("KIND", repr(kind)).replace("KNOWN", str(known))
    return text.replace("error_line", "'raise Pair.Error(\"reason\", x)  # the very ' 'line'")


def told(output: str) -> list[str]:
    """What was printed, without what a terminal shows besides."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r", "", output)
    return re.findall(r"^(?:>>> |\.\.\. )*told: (.*)$", plain, re.MULTILINE)


@pytest.mark.parametrize("how", ["-c", "stdin", "file"])
def test_a_script_without_a_guard(kind, how, tmp_path):
    known = how == "file" or (how == "-c" and sys.version_info >= (3, 14))
    ended = helpers.run(statements(kind, known), how=how, folder=tmp_path)
    assert told(ended.out) == [*TOLD, "True " + ("True" if known else "unknown")], ended.show()
    assert ended.err == "", ended.show()


def test_a_module_that_is_run(kind, tmp_path):
    """python -m name, and a folder with a __main__.py."""
    for name in ("module.py", "folder/__main__.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(statements(kind, True))
    for args in (["-m", "module"], ["folder"]):
        done = subprocess.run(
            [sys.executable, *args], cwd=tmp_path, capture_output=True, text=True, timeout=100
        )
        assert told(done.stdout) == [*TOLD, "True True"], done.stdout + done.stderr


class Terminal:
    """A Python child in a terminal of its own."""

    def __init__(self, args: list[str], env: dict[str, str]) -> None:
        self._leader, follower = pty.openpty()
        self._child = subprocess.Popen(
            [sys.executable, *args],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", **env},
        )
        os.close(follower)
        self._shown = b""
        self._deadline = time.monotonic() + helpers.WATCHDOG

    def type(self, text: str) -> None:
        os.write(self._leader, text.encode())

    def paste(self, text: str) -> None:
        """As one piece, and enters it. The REPL must see that the paste is over first."""
        for piece in (f"\x1b[200~{text}\x1b[201~", "\r", "\r"):
            self.type(piece)
            while select.select([self._leader], [], [], 0.3)[0]:
                self._shown += os.read(self._leader, 65536)

    def read_until(self, word: str | None) -> str:
        """All that was shown up to a word, or to the end."""
        while time.monotonic() < self._deadline:
            if word is not None and word.encode() in self._shown:
                return self._shown.decode()
            if select.select([self._leader], [], [], 0.1)[0]:
                try:
                    more = os.read(self._leader, 65536)
                except OSError:  # it has ended
                    more = b""
                if not more and word is None:
                    return self._shown.decode()
                self._shown += more
        self._child.kill()
        pytest.fail(f"no {word!r} in {self._shown.decode()}")

    def close(self) -> None:
        self._child.kill()
        self._child.wait(20)
        os.close(self._leader)


def blocks(text: str) -> list[str]:
    """Its statements, one by one."""
    lines, starts = text.splitlines(), []
    for statement in ast.parse(text).body:
        decorators = getattr(statement, "decorator_list", [])
        starts.append(min([statement.lineno, *(d.lineno for d in decorators)]) - 1)
    ends = [*starts[1:], len(lines)]
    return ["\n".join(lines[a:b]).rstrip() for a, b in zip(starts, ends, strict=True)]


@pytest.mark.parametrize("basic", [True, False])
def test_the_repl(kind, basic):
    """The one that edits lines itself (3.13) is pasted to, as it would indent what is typed."""
    if not basic and sys.version_info < (3, 13):
        basic = True  # the only one there is
    env = {"PYTHON_BASIC_REPL": "1"} if basic else {}
    terminal = Terminal(["-q", "-i"], env)
    try:
        terminal.read_until(">>> ")
        known = sys.version_info >= (3, 13)
        for number, block in enumerate(blocks(statements(kind, known))):
            if basic:
                terminal.type(f"{block}\n\n")
            else:
                terminal.paste(block)
            terminal.type(f"'do' 'ne {number}'\r")
            terminal.read_until(f"'done {number}'")
        terminal.type("exit()\r")
        shown = terminal.read_until(None)
    finally:
        terminal.close()
    assert told(shown) == [*TOLD, "True " + ("True" if known else "unknown")], shown


def test_a_notebook(kind):
    """In a kernel of its own; what workers print is the output of the cell that waits for them."""
    reason = "needs ipykernel and nbclient, which could not be installed for this interpreter"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    import nbformat

    cells = [
        *blocks(statements(kind, True)),
        f"with plait.Pool(2, kind={kind!r}) as pool:\n"
        "    pool.submit(print, 'told:', 'all').result()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=helpers.WATCHDOG, kernel_name="python3").execute()
    outputs = [[output.get("text", "") for output in cell.outputs] for cell in notebook.cells]
    assert told("".join("".join(texts) for texts in outputs)) == [*TOLD, "True True", "all"]
    assert outputs[-1] == ["told: all\n"]
