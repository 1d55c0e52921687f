"""NumPy in workers: the same results as in the main interpreter, on every kind.

Each test has a child process, quiet and with exit status 0.
"""

import os

import helpers
import pytest

pytest.importorskip("numpy", reason="NumPy is optional: it has no wheel for some interpreters")


@pytest.fixture(params=helpers.kinds_here())
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind that NumPy can be imported in: without a GIL, workers share the interpreter."""
    if helpers.FREE_THREADED and request.param == "interpreter":
        pytest.skip("free-threaded CPython refuses NumPy in interpreters, and threads serve there")
    return request.param


PREAMBLE = """
import sys
import plait
kind, when = sys.argv[1:]
if when == "before":
    import numpy as np
def arrays():
    rng = np.random.default_rng(7)
    yield rng.random((40, 30))
    yield rng.random((30, 40), dtype=np.float32).T           # Fortran order
    yield rng.integers(0, 100, (64, 8))[::2, ::3]             # neither order
    yield np.arange(6).astype("M8[D]")
    yield np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
    yield np.array(["x", "long text", ""])
    yield np.array(3.5)
    yield np.empty((0, 3))
    yield np.array([1, "two", None], dtype=object)
    yield np.ma.masked_array([1, 2, 3], mask=[0, 1, 0])
    yield np.float64(1.5)
def same(left, right):
    return type(left) is type(right) and left.dtype == right.dtype and np.array_equal(left, right)
"""


def run(kind: str, when: str, script: str) -> list[str]:
    return helpers.run_quietly(PREAMBLE + script, kind, when)


@pytest.mark.parametrize("when", ["before", "after"])
def test_arrays_travel_both_ways(kind: str, when: str) -> None:
    lines = run(
        kind,
        when,
        """
def there_and_back(array):
    import numpy
    if array.dtype.kind == "f" and array.ndim:
        array[...] = numpy.sqrt(array)  # what arrives can be written to, and is the worker's own
    return array
with plait.Pool(2, kind=kind) as pool:
    import numpy as np
    sent = list(arrays())
    kept = [array.copy() for array in sent]
    got = list(pool.map(there_and_back, sent))
if kind == "interpreter":
    assert all(map(same, sent, kept))
for old, new in zip(kept, got):
    assert same(np.sqrt(old) if old.dtype.kind == "f" and old.ndim else old, new), (old, new)
assert got[0].flags.writeable
print(len(got))
""",
    )
    assert lines == ["11"]


@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_workers_compute_what_main_computes(kind: str, when: str) -> None:
    lines = run(
        kind,
        when,
        """
def work(seed):
    import numpy as np
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(80, 80))
    spectrum = np.fft.rfft(a.ravel())
    return [
        float(np.linalg.svd(a)[1].max()),
        float(np.abs(spectrum).sum()),
        float(np.sort(a, axis=None)[100]),
        float(np.einsum("ij,jk->", a, a)),
        str(np.linalg.solve(a, np.ones(80)).dtype),
    ]
with plait.Pool(2, kind=kind) as pool:
    got = list(pool.map(work, range(24)))
if when == "never" and kind == "interpreter":
    assert "numpy" not in sys.modules
assert got == [work(seed) for seed in range(24)]
print("same")
""",
    )
    assert lines == ["same"]


def test_exceptions_of_numpy_come_back(kind: str) -> None:
    lines = run(
        kind,
        "before",
        """
with plait.Pool(1, kind=kind) as pool:
    error = pool.submit(np.linalg.inv, np.zeros((3, 3))).exception()
print(type(error) is np.linalg.LinAlgError, error)
""",
    )
    assert lines == ["True Singular matrix"]


def test_state_of_numpy_is_each_workers_own() -> None:
    if "interpreter" not in helpers.kinds_here() or helpers.FREE_THREADED:
        pytest.skip("only interpreters with a GIL of their own have private images")
    lines = run(
        "interpreter",
        "before",
        """
def change(precision):
    import numpy as np
    np.set_printoptions(precision=precision)
    np.seterr(all="ignore")
    return repr(np.array(1 / 3))
with plait.Pool(1, kind=kind) as one, plait.Pool(1, kind=kind) as other:
    print(one.submit(change, 2).result(), other.submit(change, 4).result())
print(repr(np.array(1 / 3)), np.geterr()["divide"])
""",
    )
    assert lines == ["array(0.33) array(0.3333)", "array(0.33333333) warn"]


@pytest.mark.parametrize("chosen", ["", "2"])
@pytest.mark.parametrize("own", ["interpreter", "process"])
def test_blas_starts_no_threads_of_its_own_unless_told_to(own: str, chosen: str) -> None:
    if own == "interpreter" and (own not in helpers.kinds_here() or helpers.FREE_THREADED):
        pytest.skip("only interpreters with a GIL of their own have private images")
    lines = helpers.run_quietly(
        """
import os, sys, plait
def square(n):
    before = len(os.listdir("/proc/self/task"))
    import numpy as np
    np.ones((n, n)) @ np.ones((n, n))
    return len(os.listdir("/proc/self/task")) - before
processors = os.sched_getaffinity(0)
with plait.Pool(1, kind=sys.argv[1]) as one, plait.Pool(1, kind=sys.argv[1]) as other:
    print(one.submit(square, 300).result(), other.submit(lambda n: square(n) < 2, 300).result())
    assert one.submit(os.sched_getaffinity, 0).result() == processors
""",
        own,
        env={"OPENBLAS_NUM_THREADS": chosen, "OMP_NUM_THREADS": ""},
    )
    threads = min(int(chosen or 1), len(os.sched_getaffinity(0)))  # OpenBLAS's own bound
    assert lines == [f"{threads - 1} True"]


def test_pools_are_closed_and_opened_again(kind: str) -> None:
    lines = run(
        kind,
        "before",
        """
def norm(array):
    import numpy as np
    return float(np.linalg.norm(array))
for round in range(4 if kind == "process" else 20):
    with plait.Pool(1, kind=kind) as pool:
        assert pool.submit(norm, np.full(16, 2.0)).result() == 8.0
print("done")
""",
    )
    assert lines == ["done"]
