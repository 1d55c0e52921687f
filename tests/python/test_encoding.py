"""What comes out of the flat format: equal, of the same type, with the same identities."""

import array
import collections
import datetime
import decimal
import functools
import importlib.util
import operator
import pickle
import struct
import sys
import uuid

import jobs
import plait
import pytest
from flat_values import assert_same, bits, doubles, encoded, leaves, values
from hypothesis import given, settings
from hypothesis import strategies as st

# ---- values of every native type ----


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


# How to put something into a container, and how to get it out.
HOLDERS = {
    "list": (lambda x: [x], lambda held: held[0]),
    "tuple": (lambda x: (x,), lambda held: held[0]),
    "set": (lambda x: {x}, lambda held: next(iter(held))),
    "frozenset": (lambda x: frozenset([x]), lambda held: next(iter(held))),
    "key": (lambda x: {x: 0}, lambda held: next(iter(held))),
    "value": (lambda x: {0: x}, lambda held: held[0]),
}


@pytest.mark.parametrize("one", HOLDERS)
@pytest.mark.parametrize("other", HOLDERS)
def test_what_only_two_containers_hold_stays_shared(one, other):
    """No variable refers to it while it is encoded: reference counts must not deceive."""
    for make in (
        lambda: "text" * 9,
        lambda: b"bytes" * 9,
        lambda: (1, "t"),
        lambda: chr(0x1F9F5) * 3,
    ):
        shared = make()
        pair = [HOLDERS[one][0](shared), HOLDERS[other][0](shared)]
        del shared
        made = encoded(pair)
        assert HOLDERS[one][1](made[0]) is HOLDERS[other][1](made[1])


def test_what_is_equal_but_not_shared_stays_apart():
    made = encoded([[1], [1], bytearray(b"x"), bytearray(b"x")])
    assert made[0] is not made[1]
    assert made[2] is not made[3]


def test_arguments_share_identities_with_each_other(pool):
    held = [1]
    if pool.kind != "thread":
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


# ---- through workers ----


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
