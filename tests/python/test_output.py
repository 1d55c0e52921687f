"""What workers print and log: whole lines, in order, where the pool's maker prints and logs."""

import collections
import contextlib
import io
import logging
import os
import re
import sys

import helpers
import jobs
import plait
import pytest

BUFFERED = {"PYTHONUNBUFFERED": ""}

WHOLE = """
import sys, plait
def say(name, count):
    for index in range(count):
        print("task", name, "line", index, "x" * 40)
        print("task", name, "error", index, "x" * 40, file=sys.stderr)
with plait.Pool(3, kind=sys.argv[1]) as pool:
    futures = [pool.submit(say, name, 300) for name in range(12)]
    if sys.argv[2]:
        for index in range(3000):
            print("main", "line", index, "x" * 40)
    for future in futures:
        future.result()
"""


@pytest.mark.parametrize("beside", ["main", ""])
def test_lines_of_several_workers_are_whole(kind, beside):
    env = BUFFERED if beside else None
    ended = helpers.run(WHOLE, kind, beside, env=env)
    seen = collections.defaultdict(list)
    for word, text in (("line", ended.out), ("error", ended.err)):
        for line in text.splitlines():
            match = re.fullmatch(rf"(main|task \d+) {word} (\d+) x{{40}}", line)
            assert match, line
            seen[match[1], word].append(int(match[2]))
    for name in range(12):
        for word in ("line", "error"):
            assert seen[f"task {name}", word] == list(range(300))
    assert seen["main", "line"] == list(range(3000 if beside else 0))


def say(text, end="\n", flush=False):
    print("say", text, sep=":", end=end, flush=flush)
    return text


def test_it_is_there_before_the_result(alive):
    """Wherever the maker's sys.stdout leads at that moment; unfinished lines, too."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for index in range(20):
            assert alive.submit(say, index).result(60) == index
            assert out.getvalue().endswith(f"say:{index}\n")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        alive.submit(say, "open", end="").result(60)
        assert out.getvalue() == "say:open"
    with contextlib.redirect_stderr(io.StringIO()) as err:
        alive.submit(lambda: print("error", file=sys.stderr)).result(60)
        assert err.getvalue() == "error\n"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert sorted(alive.map(say, range(100))) == list(range(100))
        lines = out.getvalue().splitlines()
    assert sorted(lines) == sorted(f"say:{index}" for index in range(100))


def test_a_failing_task_has_printed(alive):
    def fail(index):
        print("failing", index)
        raise ValueError(index)

    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert isinstance(alive.submit(fail, 1).exception(60), ValueError)
        assert out.getvalue() == "failing 1\n"
        with pytest.raises(ValueError, match="2"):
            next(alive.map(fail, [2]))
        assert out.getvalue() == "failing 1\nfailing 2\n"


def test_flushing_in_the_midst_of_a_task(alive, gate):
    def task(wait):
        print("begun", end="", flush=True)
        wait()
        print(", done")

    with contextlib.redirect_stdout(io.StringIO()) as out:
        future = alive.submit(task, gate.wait)
        assert helpers.settles(lambda: out.getvalue() == "begun")
        gate.open()
        future.result(60)
        assert out.getvalue() == "begun, done\n"


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "no space left")


def fails(pool, task, *args):
    """What the maker raised in the midst of a task: the task, too, but in a child, which does not
    wait for it.
    """
    if pool.kind != "process":
        return pool.submit(task, *args).exception(60)
    reported = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", reported.append)
        pool.submit(task, *args).result(60)
    assert len(reported) == 1
    return reported[0].exc_value


def test_a_stream_that_fails(alive):
    """As it would in the maker: print() raises."""
    with contextlib.redirect_stdout(Full()):
        alive.submit(jobs.same, 1).result(60)
        error = fails(alive, lambda: print("x", flush=True))
    assert isinstance(error, OSError)
    assert error.errno == 28


class Bare:
    """A stream that does not let anything be set."""

    __slots__ = ("texts",)

    def __init__(self):
        self.texts = []

    def write(self, text):
        self.texts.append(text)

    def flush(self):
        pass


def test_streams_of_other_kinds(kind):
    with contextlib.redirect_stdout(Bare()) as bare, plait.Pool(1, kind=kind) as pool:
        pool.submit(say, 1).result(60)
    assert "".join(bare.texts) == "say:1\n"
    with contextlib.redirect_stdout(None), plait.Pool(1, kind=kind) as pool:
        assert pool.submit(say, 1).result(60) == 1


def test_the_stream_stays_what_it_is(kind):
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="\n")
    with contextlib.redirect_stdout(out), plait.Pool(1, kind=kind) as pool:
        assert sys.stdout is out
        print("begun", end="")
        pool.submit(say, "ä").result(60)
        print(", ended", end="")
        out.flush()
        print("!")
        with pytest.raises(TypeError):
            out.write(b"bytes")
        assert out.write("") == 0
        assert out.write("two\nlines") == 9
        out.writelines(["\n", "more\n"])
    out.flush()
    text = out.buffer.getvalue().decode()
    assert text == "say:ä\nbegun, ended!\ntwo\nlines\nmore\n"


THREADS = """
import atexit, sys, threading, time, plait
def task():
    atexit.register(print, "at the exit")
    def late():
        time.sleep(0.2)
        print("of", "a", "thread")
    threading.Thread(target=late).start()
    print("of the task", end="")
with plait.Pool(1, kind=sys.argv[1]) as pool:
    pool.submit(task).result()
    pool.submit(print).result()
print("of main")
"""


@pytest.mark.parametrize("env", [BUFFERED, None])
def test_threads_and_exits_of_workers(kind, env):
    lines = helpers.run_quietly(THREADS, kind, env=env)
    assert lines[0] == "of the task"
    assert sorted(lines[1:]) == ["at the exit", "of a thread", "of main"]


def test_unfinished_lines_at_the_exit(kind):
    script = """
import sys, plait
pool = plait.Pool(1, kind=sys.argv[1])
print("main", end=" ")
pool.submit(print, "task", end=" ")
"""
    ended = helpers.run(script, kind, env=BUFFERED)
    assert sorted(ended.out.split()) == ["main", "task"]


FORKS = """
import os, sys, warnings, plait
def task():
    print("before ", end="")
    warnings.simplefilter("ignore")  # of threads and forks
    child = os.fork()
    if child == 0:
        print("of the copy", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("after")
with plait.Pool(1, kind="process") as pool:
    pool.submit(task).result()
"""


def test_copies_of_a_child_print_for_themselves():
    assert helpers.run_quietly(FORKS) == ["of the copy", "before after"]


def test_what_a_child_has_printed_before_it_dies(logger):
    def task():
        print("printed", flush=True)
        log(1)
        os._exit(3)

    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        plait.Pool(1, kind="process", forward_logging=True) as pool,
    ):
        assert isinstance(pool.submit(task).exception(60), plait.WorkerDied)
    assert out.getvalue() == "printed\n"
    assert [record.getMessage() for record in logger.handler.records] == ["number 1"]


# ---- logging ----


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def logger():
    """One below the root, with a handler that keeps the records; as it was, afterwards."""
    logger = logging.getLogger("plait.tests.output")
    logger.handler = Kept()
    logger.addHandler(logger.handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    logger.removeHandler(logger.handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def log(index, level=logging.INFO):
    logging.getLogger("plait.tests.output").log(level, "number %d", index, extra={"own": [index]})


def log_error():
    try:
        raise ValueError("the reason")
    except ValueError:
        logging.getLogger("plait.tests.output").exception("went wrong")


def test_records_reach_the_callers_handlers(kind, logger):
    with plait.Pool(1, kind=kind, forward_logging=True) as pool:
        pool.submit(log, 1).result(60)
        (record,) = logger.handler.records  # there before the result
        assert record.getMessage() == "number 1"
        assert (record.name, record.levelname) == ("plait.tests.output", "INFO")
        assert (record.funcName, record.own) == ("log", [1])
        assert record.pathname == log.__code__.co_filename
        assert record.lineno == log.__code__.co_firstlineno + 1
        pool.submit(log, 2, logging.DEBUG).result(60)
        assert len(logger.handler.records) == 1
        logger.setLevel(logging.ERROR)  # what is asked of the handlers' side holds at once
        pool.submit(log, 3, logging.WARNING).result(60)
        assert len(logger.handler.records) == 1
        pool.submit(log_error).result(60)
        text = logging.Formatter("%(message)s").format(logger.handler.records[-1])
        assert text.startswith("went wrong\nTraceback")
        assert text.endswith("ValueError: the reason")


def test_all_records_in_order(kind, logger):
    def many(name):
        for index in range(100):
            logging.getLogger("plait.tests.output").info("%s %s", name, index)

    with plait.Pool(2, kind=kind, forward_logging=True) as pool:
        for name in range(6):
            pool.submit(many, name)
    seen = collections.defaultdict(list)
    for record in logger.handler.records:
        name, index = record.getMessage().split()
        seen[name].append(int(index))
    assert dict(seen) == {str(name): list(range(100)) for name in range(6)}


def test_handlers_that_log_print_and_submit(kind, logger):
    with plait.Pool(2, kind=kind, forward_logging=True) as pool:

        def use(record):
            if record.getMessage() == "number 1":
                logging.getLogger("plait.tests.output").info("from the handler")
                print("printed", pool.submit(abs, -7).result(60))
            return True

        logger.addFilter(use)
        try:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                pool.submit(log, 1).result(60)
        finally:
            logger.removeFilter(use)
    assert out.getvalue() == "printed 7\n"
    messages = [record.getMessage() for record in logger.handler.records]
    assert messages == ["from the handler", "number 1"]


def test_a_handler_that_raises(kind, logger):
    def refuse(record):
        raise LookupError("refused")

    with plait.Pool(1, kind=kind, forward_logging=True) as pool:
        logger.addFilter(refuse)
        error = fails(pool, log, 1)
        logger.removeFilter(refuse)
        assert isinstance(error, LookupError)
        pool.submit(log, 2).result(60)
    assert [record.getMessage() for record in logger.handler.records] == ["number 2"]


def test_without_being_asked_for(kind):
    """A worker's interpreter has logging as Python starts with it."""
    script = """
import logging, sys, plait
logging.basicConfig(format="main %(message)s")
def task():
    logging.warning("hello")
with plait.Pool(1, kind=sys.argv[1]) as pool:
    pool.submit(task).result()
"""
    ended = helpers.run(script, kind)
    assert ended.err == ("main hello\n" if kind == "thread" else "WARNING:root:hello\n")


def test_pools_in_workers(kind):
    """What a worker's workers print is carried all the way."""

    def outer():
        with plait.Pool(1, kind=kind) as inner:
            inner.submit(say, "inner").result(60)
        return "done"

    with contextlib.redirect_stdout(io.StringIO()) as out:
        with plait.Pool(1, kind=kind) as pool:
            assert pool.submit(outer).result(60) == "done"
        assert out.getvalue() == "say:inner\n"
