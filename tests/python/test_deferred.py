"""Large arguments: freed when their call's answer is out, and none too late."""

import gc

import helpers
import plait
import pytest

BIG = 20_000
LARGE = {
    "list": list(range(10**9, 10**9 + BIG)),
    "tuple": tuple(float(number) for number in range(BIG)),
    "dict": {f"key {number}": f"value {number}" for number in range(BIG)},
    "set": {f"text {number}" for number in range(BIG)},
    "nested": [[number, [float(number)], {"key": str(number)}] for number in range(BIG // 10)],
    "bytes": bytes(BIG * 10),
}


def large_ones_left():
    """How many containers of that size the worker's interpreter has, of a call's arguments."""
    gc.collect()
    return sum(
        isinstance(one, (list, tuple, dict, set)) and len(one) in (BIG, BIG // 10)
        for one in gc.get_objects()
    )


class Witness:
    gone = 0

    def __del__(self):
        type(self).gone += 1


@pytest.fixture
def one_apart(one: plait.Pool) -> plait.Pool:
    """A worker that has objects of its own."""
    if one.kind == "thread":
        pytest.skip("the arguments of a thread's calls are the submitter's own")
    return one


@pytest.mark.parametrize("shape", LARGE)
def test_nothing_is_left_when_the_next_call_runs(one_apart, shape):
    before = one_apart.submit(large_ones_left).result(helpers.LONG)
    for _ in range(5):
        value = LARGE[shape]
        assert one_apart.submit(len, value).result(helpers.LONG) == len(value)
        assert one_apart.submit(len, value, value).exception(helpers.LONG) is not None
    assert one_apart.submit(large_ones_left).result(helpers.LONG) == before


@pytest.mark.parametrize("shape", ["list", "tuple", "dict"])
def test_contents_are_right_each_time(one, shape):
    for round_number in range(20):
        values = [10**9 + round_number + number for number in range(BIG)]
        value = {
            "list": values,
            "tuple": tuple(values),
            "dict": dict(zip(values, map(str, values), strict=True)),
        }[shape]
        same = one.submit(lambda value: value, value)
        assert one.submit(hash, tuple(value)).result(helpers.LONG) == hash(tuple(value))
        assert same.result(helpers.LONG) == value


def test_more_of_them_than_are_put_off(one):
    many = [[number] * BIG for number in range(30)]
    assert one.submit(lambda *args: [len(arg) for arg in args], *many).result() == [BIG] * 30


def test_what_the_task_keeps_stays(one):
    value = LARGE["list"]

    def keep(value):
        import builtins

        builtins.kept_by_a_test = value

    def look():
        import builtins

        kept = builtins.kept_by_a_test
        del builtins.kept_by_a_test
        return kept

    one.submit(keep, list(value)).result(helpers.LONG)
    for _ in range(3):
        one.submit(len, list(value)).result(helpers.LONG)
    assert one.submit(look).result(helpers.LONG) == value


def test_objects_with_finalizers_go_before_the_answer(one_apart):
    """What they do belongs to their call: it may print, or wait for something."""

    def count(*_):
        return Witness.gone

    before = one_apart.submit(count).result(helpers.LONG)
    for more in range(1, 4):
        witnesses = [Witness() for _ in range(5_000)]
        one_apart.submit(len, witnesses).result(helpers.LONG)
        assert one_apart.submit(count).result(helpers.LONG) == before + 5_000 * more
