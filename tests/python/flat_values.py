"""Values of every type that the flat format knows, and how what came out of it is compared."""

import collections
import datetime
import decimal
import functools
import math
import os
import struct

import jobs
from hypothesis import HealthCheck, settings
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


# ---- strategies ----

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
