"""Exceptions of calls: they come back as themselves, with cause, notes and traceback."""

import pickle
import traceback

import helpers
import jobs
import plait
import pytest

LONG = helpers.LONG


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1),
        KeyError("k"),
        OSError(2, "No such file", "name"),
        FileNotFoundError(2, "m", "f"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        StopIteration(3),
        SystemExit(4),
        KeyboardInterrupt("k"),
        GeneratorExit(),
        MemoryError("m"),
        jobs.Mistake(7, detail="d"),
        ImportError("no", name="n", path="p"),
        SyntaxError("bad", ("file", 1, 2, "text", 1, 3)),
        AssertionError(),
        Exception(),
        ZeroDivisionError("z"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_exceptions_come_back_as_themselves(alive, error):
    caught = alive.submit(jobs.fail, error).exception(LONG)
    assert type(caught) is type(error)
    assert caught.args == error.args
    ours, theirs = dict(vars(caught)), dict(vars(error))
    assert ours == theirs
    for name in (
        "errno",
        "filename",
        "name",
        "path",
        "object",
        "reason",
        "code",
        "value",
        "lineno",
        "text",
    ):
        assert getattr(caught, name, None) == getattr(error, name, None)
    assert caught.__cause__ is None
    with pytest.raises(type(error)):
        alive.submit(jobs.fail, error).result(LONG)


def test_cause_context_and_notes(alive):
    def chain():
        try:
            try:
                {}["missing"]
            except KeyError as error:
                error.add_note("noted inside")
                raise ValueError("middle") from error
        except ValueError:
            outer = jobs.Mistake(1)
            outer.add_note("first")
            outer.add_note("second")
            raise outer  # noqa: B904

    error = alive.submit(chain).exception(LONG)
    assert type(error) is jobs.Mistake
    assert error.__notes__ == ["first", "second"]
    middle = error.__context__
    assert (type(middle), middle.args) == (ValueError, ("middle",))
    assert error.__cause__ is None
    assert middle.__cause__ is middle.__context__
    assert type(middle.__cause__) is KeyError
    assert middle.__suppress_context__
    assert not error.__suppress_context__
    assert middle.__cause__.__notes__ == ["noted inside"]
    told = "".join(traceback.format_exception(error))
    for part in (
        "raise outer",
        '{}["missing"]',
        "noted inside",
        "second",
        "direct cause",
        "During handling",
    ):
        assert part in told


def test_raise_from_none_and_cycles(alive):
    def quiet():
        try:
            raise KeyError(1)
        except KeyError:
            raise ValueError(2) from None

    def cyclic():
        one, two = ValueError(1), ValueError(2)
        one.__cause__, two.__cause__ = two, one
        raise one

    error = alive.submit(quiet).exception(LONG)
    assert error.__suppress_context__
    assert "KeyError" not in "".join(traceback.format_exception(error))
    error = alive.submit(cyclic).exception(LONG)
    assert error.__cause__.__cause__ is error


def test_groups(alive):
    def group():
        try:
            raise OSError(5, "inner")
        except OSError as error:
            inner = error
        nested = ExceptionGroup("nested", [inner, jobs.Mistake(2)])
        nested.add_note("a note")
        raise ExceptionGroup("outer", [ValueError("v"), nested]) from inner

    error = alive.submit(group).exception(LONG)
    assert type(error) is ExceptionGroup
    assert error.message == "outer"
    value, nested = error.exceptions
    assert (type(value), value.args) == (ValueError, ("v",))
    assert nested.message == "nested"
    assert nested.__notes__ == ["a note"]
    assert nested.exceptions[1].code == 2
    assert nested.exceptions[0].errno == 5
    assert 'raise OSError(5, "inner")' in "".join(traceback.format_exception(error))
    with pytest.raises(BaseExceptionGroup):
        alive.submit(jobs.fail, BaseExceptionGroup("b", [KeyboardInterrupt()])).result(LONG)
    matched, rest = error.split(ValueError)
    assert len(matched.exceptions) == 1
    assert rest.split((OSError, jobs.Mistake))[1] is None


def test_the_workers_traceback_shows_the_source(alive):
    error = alive.submit(jobs.odd_or_fail, 4).exception(LONG)
    told = "".join(traceback.format_exception(error))
    assert 'raise ValueError(f"{x} is even")' in told
    assert "jobs.py" in told
    assert "in odd_or_fail" in told
    assert error.__traceback__.tb_lineno > 1

    def deep(n):
        return deep(n - 1) if n else 1 // n  # the line of the lambda's callee

    told = "".join(traceback.format_exception(alive.submit(deep, 2).exception(LONG)))
    assert told.count("in deep") == 3
    assert "1 // n  # the line" in told
    with pytest.raises(ValueError, match="is even") as caught:
        alive.submit(jobs.odd_or_fail, 4).result(LONG)
    names = [entry.name for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0].startswith("test_")  # where it was asked for
    assert names[-1] == "odd_or_fail"  # where it was raised


def test_exceptions_that_cannot_travel(alive):
    """Threads hand over the object; elsewhere a RemoteError may stand in."""
    for make, name, text in [
        (lambda: jobs.fail_with(jobs.Stubborn, 1, 2), "Stubborn", "1 and 2"),
        (lambda: jobs.fail_with(jobs.Carrier, "carried"), "Carrier", "carried"),
    ]:
        error = alive.submit(make).exception(LONG)
        assert isinstance(error, plait.RemoteError) or type(error).__name__ == name
        assert name in f"{type(error)} {error}"
        assert text in str(error)
        if isinstance(error, plait.RemoteError):
            assert error.type_name == name
            assert pickle.loads(pickle.dumps(error)).args == error.args
        else:
            assert alive.kind == "thread"

    def around():
        raise ValueError("outer") from jobs.Carrier("inner")

    error = alive.submit(around).exception(LONG)
    assert type(error) is ValueError
    assert "inner" in str(error.__cause__)


def test_a_long_chain_of_exceptions(alive):
    def chain(length):
        error = ValueError(0)
        for number in range(1, length):
            following = ValueError(number)
            following.__cause__ = error
            error = following
        raise error

    error, length = alive.submit(chain, 150).exception(LONG), 0
    while error is not None:
        error, length = error.__cause__, length + 1
    assert length == 150
    error = alive.submit(chain, 5000).exception(LONG)
    assert "4999" in str(error)
