"""The limits of the flat format: what cannot travel, and messages that are no messages."""

import gc
import os
import pickle
import struct
import sys
import threading

import helpers
import jobs
import pytest
from flat_values import encoded, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plait import _plait

# ---- what cannot travel ----


@pytest.mark.parametrize("wrap", ["[x]", "(x,)", "{0: x}", "slice(x)", "Holder(x)"])
def test_what_is_nested_too_deep_is_a_recursion_error(wrap):
    make = eval(f"lambda x: {wrap}", {"Holder": jobs.Holder})
    nested = None
    for _ in range(200_000):
        nested = make(nested)
    with pytest.raises((RecursionError, pickle.PicklingError), match=r"recursion|Stack overflow"):
        _plait._encode(nested)
    while nested is not None:  # bit by bit: not every type's destructor is made for this
        nested = (
            nested.held
            if wrap[0] == "H"
            else nested.start or nested.stop
            if wrap[0] == "s"
            else nested[0]
        )


def test_what_can_be_encoded_can_be_decoded_at_any_depth():
    for depth in (10, 100, 500, 1000, 2000, 5000, 9000):
        nested = []
        for _ in range(depth):
            nested = [nested]
        try:
            message = _plait._encode(nested)
        except RecursionError:
            continue
        made, count = _plait._decode(message), 0
        while made:
            made, count = made[0], count + 1
        assert count == depth


def test_what_cannot_travel_is_named():
    lock = threading.Lock()
    with open(os.devnull, "rb") as file:
        for obj, word in [
            (lock, "lock"),
            ([1, {"the key": lock}], "the key"),
            (jobs.Locked(), "Locked"),
            (file, "BufferedReader"),
            ((n for n in ()), "generator"),
            (sys._getframe(), "frame"),
        ]:
            with pytest.raises(pickle.PicklingError, match=word) as caught:
                _plait._encode(obj)
            assert "kind='thread'" in str(caught.value)  # the way out
    assert encoded([1]) == [1]


# ---- messages that are not whole ----


@given(values, st.data())
@settings(max_examples=100)
def test_a_truncated_message_is_refused(obj, data):
    message = _plait._encode(obj)
    assume(len(message) > 1)
    with pytest.raises(ValueError, match="malformed"):
        _plait._decode(message[: data.draw(st.integers(0, len(message) - 1))])


@given(st.binary(max_size=200))
def test_noise_is_refused(noise):
    with pytest.raises(ValueError, match="malformed"):
        _plait._decode(noise)


def test_only_bytes_are_decoded():
    for obj in ("text", None, bytearray(b"x"), 5):
        with pytest.raises(TypeError):
            _plait._decode(obj)


MUTATE = """
import datetime, decimal, gc, pickle, random, struct, sys, uuid
sys.path.insert(0, sys.argv[1])
import jobs
from plait import _plait

# No pickle among these: what a changed pickle may do is pickle's own business.
def loads(data, buffers):
    raise pickle.UnpicklingError("left out")
import plait._travel
plait._travel.loads = loads

shared = ("shared", (1, 2.5))
loop = [shared, {"k": shared}]
loop.append(loop)
tz = datetime.timezone(datetime.timedelta(hours=2), "x")
day = datetime.datetime(2024, 2, 29, 23, 59, tzinfo=tz)
seeds = [
    loop,
    [None, True, 1 << 70, -(1 << 900), 2.5j, "é", "\\u0100", "\\U00010000", b"b", bytearray(b"x")],
    {1: {2, 3}, "a": frozenset("ab"), (1, 2): slice(1, None, "x")},
    [day, day.time(), day.date(), day.timetz()],
    [decimal.Decimal("1.25"), uuid.UUID(int=5), range(1, 10, 2)],
    [jobs.Colour.RED, jobs.double, len, day - day],
    {shared: shared, (shared, shared): [shared, shared]}, tuple(range(20)), [["x" * 20] * 4] * 4,
]
rng = random.Random(int(sys.argv[2]))
refused = accepted = 0
for turn in range(int(sys.argv[3])):
    message = bytearray(_plait._encode(seeds[turn % len(seeds)]))
    words = len(message) // 8
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        how = rng.randrange(6)
        at = rng.randrange(len(message))
        word = rng.randrange(2, words) * 8
        if how == 0:
            message[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            message[at] = rng.choice([0, 1, 0xFF, 0x7F, 0x80, rng.randrange(256)])
        elif how == 2:  # another type
            message[word] = rng.randrange(32)
        elif how == 3:  # a reference to anywhere
            message[word:word + 8] = struct.pack("<Q", 0xFFFB << 48 | rng.randrange(4, words + 1))
        elif how == 4:  # a word of another place
            other = rng.randrange(2, words) * 8
            message[word:word + 8] = message[other:other + 8]
        else:  # shared
            message[word + 1] ^= 1
    try:
        made = _plait._decode(bytes(message))
        repr(made)
        accepted += 1
    except (SystemError, MemoryError):
        print("seed", turn % len(seeds), bytes(message).hex())
        raise
    except Exception:
        refused += 1
    if turn % 1000 == 0:
        gc.collect()
print(refused, accepted)
"""


@pytest.mark.parametrize("seed", range(4))
def test_no_mutated_message_is_worse_than_an_exception(seed):
    """In a child: what is looked for here ends a process."""
    folder = os.path.dirname(__file__)
    (line,) = helpers.run_quietly(MUTATE, folder, str(seed), "30000")
    refused, accepted = map(int, line.split())
    assert refused > 5000
    assert accepted > 500


def word_of(offset):
    return 0xFFFB << 48 | offset // 8


def small(number):
    return 0xFFF9 << 48 | number


def message_of(*words):
    """A message of a one-tuple, as _encode() makes: the words after the header and that tuple."""
    size = 32 + 8 * (2 + len(words))
    head = struct.pack("<4sHHQQQ", b"plit", 1, 0, size, word_of(32), 0)
    return head + struct.pack(f"<{2 + len(words)}Q", 7 | 1 << 16, word_of(48), *words)


TUPLE, DICT, SET, FROZENSET, DECIMAL, SHARED = 7, 11, 9, 10, 20, 1 << 8


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            (TUPLE | SHARED | 1 << 16, word_of(64), DICT | 1 << 16, word_of(48), small(1)), id="key"
        ),
        pytest.param(
            (TUPLE | SHARED | 1 << 16, word_of(64), SET | 1 << 16, word_of(48)), id="member"
        ),
        pytest.param(
            (TUPLE | SHARED | 1 << 16, word_of(64), FROZENSET | 1 << 16, word_of(48)), id="frozen"
        ),
        pytest.param(
            (
                TUPLE | SHARED | 3 << 16,
                small(0),
                word_of(80),
                small(0),
                DECIMAL | 1 << 16,
                word_of(48),
            ),
            id="decimal",
        ),
    ],
)
def test_a_tuple_that_is_not_complete_yet_is_never_used(words):
    """No encoder makes such a cycle; a reader must refuse it, or build it, and live on."""
    script = """
import sys
from plait import _plait
try:
    made = _plait._decode(bytes.fromhex(sys.argv[1]))
except (ValueError, TypeError):
    print("refused")
else:
    print("made", repr(made))
"""
    lines = helpers.run_quietly(script, message_of(*words).hex())
    assert lines[0].startswith(("refused", "made")), lines


@pytest.mark.parametrize("length", [1, 2, 8, 9, 40])
def test_a_text_that_is_not_of_its_width_is_refused_or_made_good(length):
    text = "x" * length
    message = bytearray(_plait._encode([text]))
    at = message.index(text.encode())
    for place in (at, at + length - 1):
        bad = bytearray(message)
        bad[place] |= 0x80
        try:
            (made,) = _plait._decode(bytes(bad))
        except ValueError:
            continue
        assert not made.isascii()  # one that says so and is not would crash what trusts it


def test_the_collector_is_on_after_decoding_if_it_was_before():
    good = _plait._encode([(n, []) for n in range(5_000)])
    bad = bytearray(good)
    bad[-8:] = struct.pack("<Q", word_of(1 << 40))
    assert gc.isenabled()
    _plait._decode(good)
    assert gc.isenabled()
    with pytest.raises(ValueError, match="malformed"):
        _plait._decode(bytes(bad))
    assert gc.isenabled()
    gc.disable()
    try:
        _plait._decode(good)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("what", ["list", "dict", "tuple-free-list"])
def test_a_container_that_changes_while_it_is_encoded(what):
    """Encoding runs Python code at times, and that may change the container being encoded."""
    script = """
import sys, uuid, gc
from plait import _plait
held = {"list": [uuid.UUID(int=n) for n in range(100)],
        "dict": {uuid.UUID(int=n): uuid.UUID(int=~n & 0xFFFF) for n in range(100)},
        "tuple-free-list": [[uuid.UUID(int=n)] for n in range(100)]}[sys.argv[1]]
calls = 0
def meddle(frame, event, arg):
    global calls
    calls += 1
    if calls == 10:
        held.clear()
        gc.collect()
        globals()["filler"] = [uuid.UUID(int=7) for n in range(300)]
sys.setprofile(meddle)
try:
    _plait._encode(held)
except RuntimeError as error:
    sys.setprofile(None)
    print("refused" if "changed size" in str(error) else error)
else:
    sys.setprofile(None)
    print("encoded")
"""
    lines = helpers.run_quietly(script, what, env={"PYTHONMALLOC": "debug"})
    assert lines in (["refused"], ["encoded"])


def test_decoding_does_not_keep_the_message_or_the_objects():
    """Thousands of round trips leave nothing behind."""
    obj = {"a": [1.5, "text" * 100, {"b": (1, 2)}], "record": jobs.Record("r", [0] * 100)}
    encoded(obj)
    before = helpers.memory_of_process()
    for _ in range(5000):
        encoded(obj)
        with pytest.raises(pickle.PicklingError):
            _plait._encode([bytes(10_000), jobs.Locked()])
        with pytest.raises(ValueError, match="malformed"):
            _plait._decode(b"noise" * 100)
    assert helpers.memory_of_process() - before < 20_000_000
