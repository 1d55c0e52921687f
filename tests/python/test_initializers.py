"""What an initializer of a script's own does for the tasks of the script."""

import helpers
import pytest

MAIN = """
import functools, sys, plait

status, table, made = "unset", {}, "unset"
limit = 1

def helper(value):
    global made
    made = [value]

def prepare(value, key="k"):
    global status, connection
    status, connection = value, object()
    table[key] = value
    helper(value)

def look():
    return status, table, made, type(connection).__name__

def again():
    return id(connection), id(table), limit

class Prepare:
    def __call__(self, value): prepare(value)
    def method(self, value): prepare(value)

how = {"function": prepare, "partial": functools.partial(prepare, key="k"), "lambda":
       lambda value: prepare(value), "method": Prepare().method, "instance": Prepare()}[sys.argv[2]]
with plait.Pool(1, kind=sys.argv[1], initializer=how, initargs=("set",)) as pool:
    assert pool.submit(look).result() == ("set", {"k": "set"}, ["set"], "object")
    assert list(pool.map(lambda n: (status, n), [1])) == [("set", 1)]
    first = pool.submit(again).result()
    assert first[:2] == pool.submit(lambda: (id(connection), id(table))).result()
    # What the program sets later is what its tasks see from then on; the rest stays.
    status, limit = "changed", 2
    assert pool.submit(look).result() == ("changed", {"k": "set"}, ["set"], "object")
    assert pool.submit(again).result() == (*first[:2], 2)
    table = {"k": "other"}
    connection = 5
    assert pool.submit(look).result() == ("changed", {"k": "other"}, ["set"], "int")
print("passed")
"""


@pytest.mark.parametrize("how", ["function", "partial", "lambda", "method", "instance"])
def test_what_an_initializer_sets_is_seen_by_tasks(kind, how):
    assert helpers.run_quietly(MAIN, kind, how) == ["passed"]
