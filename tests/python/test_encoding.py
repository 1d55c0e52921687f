"""What comes out of the flat format: equal, of the same type, with the same identities."""

import array
import collections
import datetime
import decimal
import functools
import importlib.util
import math
import operator
import os
import pickle
import struct
import sys
import threading
import uuid

import helpers
import jobs
import plait
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from plait import _plait

settings.register_profile(
    "plait", deadline=None, suppress_health_check=list(HealthCheck), max_examples=150
)
settings.load_profile("plait")


def encoded(obj):
    return _plait._decode(_plait._encode(obj))


def bits(number):
    return struct.pack("<d", number)


def assert_same(made, given, pairs=None):
    """Equal in type and value, bit by bit, and with the same identities, cycles included."""
    pairs = {} if pairs is None else pairs
    if id(given) in pairs:
        assert made is pairs[id(given)][1], "an identity was lost"
        return
    assert type(made) is type(given), (made, given)
    kind = type(given)
    if kind in (list, tuple, dict, set, frozenset, bytearray):
        pairs[id(given)] = (given, made)  # given is kept, so that no id is used twice
    if kind is float:
        assert bits(made) == bits(given)
    elif kind is complex:
        assert bits(made.real) + bits(made.imag) == bits(given.real) + bits(given.imag)
    elif kind in (list, tuple):
        assert len(made) == len(given)
        for ours, theirs in zip(made, given, strict=True):
            assert_same(ours, theirs, pairs)
    elif kind is dict:
        assert len(made) == len(given)
        for ours, theirs in zip(made.items(), given.items(), strict=True):  # in the same order
            assert_same(ours[0], theirs[0], pairs)
            assert_same(ours[1], theirs[1], pairs)
    elif kind in (set, frozenset):
        assert sorted(map(_key, made)) == sorted(map(_key, given))
    elif kind is slice:
        for name in ("start", "stop", "step"):
            assert_same(getattr(made, name), getattr(given, name), pairs)
    elif kind is decimal.Decimal:
        assert made.as_tuple() == given.as_tuple()
    elif kind in (datetime.datetime, datetime.time):
        assert made.replace(tzinfo=None) == given.replace(tzinfo=None)
        assert made.fold == given.fold
        assert_same(made.tzinfo, given.tzinfo, pairs)
    elif kind is datetime.timezone:
        assert made.__getinitargs__() == given.__getinitargs__()
    else:
        assert made == given


def _key(obj):
    """Tells members of a set apart by type and bits."""
    if isinstance(obj, tuple | frozenset):
        return (type(obj).__name__, str(sorted(map(str, map(_key, obj)))))
    return (type(obj).__name__, bits(obj).hex() if type(obj) is float else ascii(obj))


# ---- values of every native type ----

doubles = st.floats() | st.binary(min_size=8, max_size=8).map(lambda b: struct.unpack("<d", b)[0])
integers = st.integers() | st.builds(
    lambda sign, power, off: sign * ((1 << power) + off),
    st.sampled_from([-1, 1]),
    st.integers(0, 3000),
    st.integers(-2, 2),
)
texts = st.text(st.characters(exclude_categories=())) | st.text(
    "\0a\x7f\x80é\xffĀ\ud800\udfff￿𐀀\U0010ffff"
)
zones = (
    st.none()
    | st.builds(
        datetime.timezone,
        st.timedeltas(
            datetime.timedelta(hours=-23, minutes=-59), datetime.timedelta(hours=23, minutes=59)
        ),
    )
    | st.builds(
        datetime.timezone,
        st.timedeltas(datetime.timedelta(hours=-1), datetime.timedelta(hours=1)),
        st.text(),
    )
    | st.just(datetime.UTC)
)
decimals = st.decimals() | st.sampled_from(
    [
        decimal.Decimal(t)
        for t in ("-0", "0E-20", "1E+400", "NaN123", "-sNaN", "sNaN7", "-Infinity", "1.10")
    ]
)
names = st.sampled_from(
    [
        jobs.Colour.RED,
        jobs.Colour.CRIMSON,
        jobs.Number.TWO,
        jobs.Flags.B,
        len,
        print,
        math.sin,
        os.path.join,
        jobs.double,
        functools.reduce,
        int,
        dict,
        type,
        object,
        collections.OrderedDict,
        datetime.datetime,
        jobs.Holder,
        jobs.Holder.Inner,
        jobs.Holder.static,
        jobs.Point,
        ValueError,
        jobs.Mistake,
    ]
)
singletons = st.sampled_from([None, True, False, Ellipsis, NotImplemented])
hashable_leaves = (
    singletons
    | integers
    | doubles
    | st.complex_numbers()
    | texts
    | st.binary()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=zones)
    | st.timedeltas()
    | st.uuids()
    | decimals
    | zones
    | st.builds(range, st.integers(), st.integers(), st.integers().filter(bool))
)
hashable_leaves = hashable_leaves.filter(
    lambda x: not (isinstance(x, decimal.Decimal) and x.is_snan())
)
hashable = st.recursive(
    hashable_leaves,
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
leaves = hashable_leaves | decimals | st.binary().map(bytearray) | names
values = st.recursive(
    leaves | st.builds(slice, leaves, leaves, leaves),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(hashable, inner, max_size=5)
        | st.sets(hashable, max_size=5)
        | st.frozensets(hashable, max_size=5)
    ),
    max_leaves=20,
)


@given(leaves)
@settings(max_examples=600)
def test_leaves_come_back(obj):
    assert_same(encoded(obj), obj)


@given(values)
@settings(max_examples=300)
def test_nested_values_come_back(obj):
    assert_same(encoded(obj), obj)


@given(doubles)
def test_every_bit_of_a_float(number):
    assert bits(encoded(number)) == bits(number)
    made = encoded([complex(number, -0.0), complex(-0.0, number)])
    assert bits(made[0].real) == bits(number)
    assert bits(made[1].imag) == bits(number)


def test_nan_payloads_signs_and_infinities():
    for word in (
        0x7FF0000000000001,
        0xFFF0000000000001,
        0x7FF8000000000000,
        0xFFF8000000000000,
        0xFFF9000000000000,
        0xFFFA000000000001,
        0xFFFB000000000004,
        0xFFFFFFFFFFFFFFFF,
        0x8000000000000000,
        0x7FF0000000000000,
        0xFFF0000000000000,
        1,
    ):
        (number,) = struct.unpack("<d", struct.pack("<Q", word))
        assert struct.unpack("<Q", bits(encoded(number)))[0] in (word, word | 1 << 51), hex(word)
        assert_same(encoded([number, (number,)]), [number, (number,)])


@pytest.mark.parametrize(
    "power", [7, 8, 15, 16, 30, 31, 46, 47, 48, 60, 61, 63, 64, 127, 1000, 100_000]
)
def test_integers_around_powers_of_two(power):
    for offset in range(-2, 3):
        for sign in (1, -1):
            number = sign * (2**power + offset)
            assert_same(encoded(number), number)


def test_texts_of_every_width():
    for char in "\0a\x7f\x80ÿĀ\ud800\udfff￿𐀀\U0010ffff":
        for text in (char, char * 17, "plain " + char, char + "\0"):
            made = encoded([text])[0]
            assert made == text
            assert sys.getsizeof(made) <= sys.getsizeof(text)  # compact, as Python itself makes it


def test_large_values():
    for obj in (b"\0x" * 5_000_000, "é" * 5_000_000, list(range(300_000)), 1 << 4_000_000):
        assert encoded(obj) == obj
    table = {f"key {n}": (n, float(n), str(n)) for n in range(50_000)}
    assert encoded(table) == table


# ---- identities ----


def graph(spec):
    """Containers that refer to each other, cycles included, out of drawn numbers."""
    nodes = [[list, dict, list, bytearray][choice % 4]() for choice, _ in spec]
    for node, (_, edges) in zip(nodes, spec, strict=True):
        for edge in edges:
            target = nodes[edge % len(nodes)]
            if isinstance(node, list):
                node.append((target, edge) if edge % 5 == 4 else target)
            elif isinstance(node, dict):
                node[f"key {edge}"] = target
            else:
                node.append(edge % 256)
    return nodes


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 30), max_size=5)),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=300)
def test_random_graphs_keep_their_shape(spec):
    nodes = graph(spec)
    assert_same(encoded(nodes), nodes)
    assert_same(encoded(nodes[0]), nodes[0])


def test_cycles():
    loop = []
    loop.append(loop)
    made = encoded(loop)
    assert made[0] is made
    node = {}
    node["me"] = (node, [node])
    made = encoded(node)
    assert made["me"][0] is made
    assert made["me"][1][0] is made
    pair = ([],)
    pair[0].append(pair)
    made = encoded(pair)
    assert made[0][0] is made


@pytest.mark.parametrize(
    "shared",
    [
        [1],
        (1, [2]),
        {"a": 1},
        {1},
        frozenset([1, 2]),
        bytearray(b"x"),
        "text" * 9,
        b"bytes" * 9,
        1 << 100,
        datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
        decimal.Decimal("1.5"),
        uuid.UUID(int=1),
        2.5j,
        range(3),
        slice(1, 2),
        jobs.Record("r"),
        jobs.Holder([1]),
    ],
    ids=lambda o: type(o).__name__,
)
def test_what_is_shared_stays_shared(shared):
    made = encoded([shared, {"again": shared}, (shared,)])
    if type(shared) is not int:  # numbers have no identity
        assert made[0] is made[1]["again"] is made[2][0]
    assert type(made[0]) is type(shared)


def test_what_is_equal_but_not_shared_stays_apart():
    made = encoded([[1], [1], bytearray(b"x"), bytearray(b"x")])
    assert made[0] is not made[1]
    assert made[2] is not made[3]


def test_arguments_share_identities_with_each_other(pool):
    held = [1]
    if pool.kind == "interpreter":
        assert pool.submit(operator.is_, held, held).result(60)
        assert pool.submit(
            lambda a, b, c: a is b[0] and a is c["k"], held, [held], {"k": held}
        ).result(60)
        assert pool.submit(lambda a, *, b: a is b.held, held, b=jobs.Holder(held)).result(60)


# ---- what is not native ----


@pytest.mark.parametrize(
    "obj",
    [
        jobs.Point(1, [2]),
        jobs.Ordered(a=1),
        collections.OrderedDict(b=1, a=2),
        jobs.Number.ONE,
        jobs.Colour.CRIMSON,
        jobs.Flags.A | jobs.Flags.C,
        collections.Counter("abca"),
        collections.deque([1, 2], 3),
        collections.defaultdict(list, a=[1]),
        jobs.Record("r", [1, "x"]),
        array.array("d", [1.5, -0.0]),
        functools.partial(pow, 2),
        operator.itemgetter(1),
        pickle.PickleBuffer,
        datetime.UTC,
        type(None),
        list[int],
        ValueError("x"),
        memoryview,
        jobs.Text("text"),
    ],
    ids=repr,
)
def test_instances_of_subclasses_and_of_other_classes_keep_their_type(obj):
    for made in (encoded(obj), encoded([obj, {"k": obj}])[1]["k"]):
        assert type(made) is type(obj)
        assert repr(made) == repr(obj)
        if obj == pickle.loads(pickle.dumps(obj)):  # not every class can tell
            assert made == obj


def test_enum_members_and_classes_are_the_very_same():
    for obj in (
        jobs.Colour.RED,
        jobs.Number.TWO,
        jobs.Flags.A,
        jobs.Colour,
        jobs.double,
        len,
        jobs.Holder.Inner,
    ):
        assert encoded(obj) is obj
        assert encoded({"k": [obj]})["k"][0] is obj


def test_identities_across_native_and_pickled_parts():
    shared = [1]
    made = encoded([shared, jobs.Holder(shared), jobs.Record("r", shared)])
    assert made[0] is made[1].held is made[2].values
    holder = jobs.Holder()
    holder.held = {"me": holder, "list": [holder]}
    made = encoded(holder)
    assert made.held["me"] is made is made.held["list"][0]


@pytest.mark.skipif(not importlib.util.find_spec("numpy"), reason="numpy is not installed")
@pytest.mark.parametrize(
    "dtype", ["f8", "i4", "u1", "c16", "M8[s]", "U5", "O", [("a", "i2"), ("b", "f4")]]
)
def test_arrays_come_back(dtype):
    import numpy as np

    for shape in [(), (0,), (7,), (3, 4), (2, 0, 3)]:
        given = np.zeros(shape, dtype)
        for obj in (given, np.asfortranarray(given), given[..., None][::1]):
            made = encoded({"array": obj})["array"]
            assert (made.dtype, made.shape) == (obj.dtype, obj.shape)
            assert made.flags.f_contiguous == obj.flags.f_contiguous
            assert made.tolist() == obj.tolist()
    large = np.arange(1_000_000)
    made, again = encoded([large, large])
    assert made is again
    assert (made == large).all()
    made[0] = 7  # as writable as the original
    assert large[0] == 0
    large.flags.writeable = False
    assert not encoded(large).flags.writeable


def test_out_of_band_buffers():
    class Buffered:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            return bytearray, (pickle.PickleBuffer(self.data),)

    for size in (0, 1, 8, 100_000):
        data = bytes(range(256)) * (size // 256 + 1)
        assert encoded(Buffered(data[:size])) == data[:size]
        assert encoded(Buffered(bytearray(data[:size]))) == data[:size]


# ---- limits and bad input ----


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


def test_every_kind_gives_the_same(pool):
    """The same values through real workers."""
    rng = [
        None,
        1.5,
        "é",
        b"b",
        {"k": (1, [2])},
        {1, 2},
        datetime.datetime.now(datetime.UTC),
        jobs.Point(1, 2),
    ]
    for obj in [*rng, rng, decimal.Decimal("sNaN"), jobs.Colour.RED, jobs.Record("r", rng)]:
        assert_same(pool.submit(jobs.same, obj).result(60), obj)
    assert_same(list(pool.map(jobs.same, rng)), rng)
    assert isinstance(pool, plait.Pool)
