"""Pool.map, map_unordered, starmap and reduce: order, laziness, errors at their place, memory."""

import functools
import itertools
import operator
import pickle
import random
import threading
import weakref
from concurrent.futures import CancelledError

import helpers
import jobs
import plait
import pytest

LONG = helpers.LONG


def counting(iterable):
    """An iterator over the items, and a list of how many were taken so far."""
    taken = [0]

    def generate():
        for item in iterable:
            taken[0] += 1
            yield item

    return generate(), taken


# ---- results ----


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 127, 1000, 20_000])
def test_order(alive, count):
    assert list(alive.map(jobs.double, range(count))) == [n * 2 for n in range(count)]
    assert list(alive.map(lambda x: (x, [x]), range(count))) == [(n, [n]) for n in range(count)]
    made = alive.map_unordered(jobs.double, range(count))
    assert sorted(made) == [n * 2 for n in range(count)]


def test_order_of_uneven_work(alive):
    def work(n):
        return n, sum(range(20_000 if n % 97 == 0 else 10))

    assert [n for n, _ in alive.map(work, range(3000))] == list(range(3000))


def test_unordered_gives_what_is_there(kind, gate):
    """A result is given though an earlier item waits for it."""
    with plait.Pool(2, kind=kind) as pool:
        jobs_of = [gate.wait, *[functools.partial(jobs.same, n) for n in range(400)]]
        results = pool.map_unordered(lambda job: job(), jobs_of, buffersize=2)
        first = next(results)
        assert first != "passed"
        gate.open()
        assert sorted(map(str, [first, *results])) == sorted(["passed", *map(str, range(400))])


def test_several_iterables(alive):
    assert list(alive.map(jobs.add, [1, 2, 3], (10, 20, 30))) == [11, 22, 33]
    assert list(alive.map(jobs.add, [1, 2, 3], itertools.count(10))) == [11, 13, 15]
    assert list(alive.map(jobs.add, [], [1])) == []
    assert list(alive.map(lambda *a: a, "ab", "cd", "ef")) == [("a", "c", "e"), ("b", "d", "f")]
    assert list(alive.map(jobs.arguments, [(1, 2)], [[3]])) == [(((1, 2), [3]), {})]
    assert list(alive.map(jobs.same, [(1, 2), [3]])) == [(1, 2), [3]]  # never spread
    with pytest.raises(TypeError):
        alive.map(jobs.same, 5)
    with pytest.raises(TypeError):
        alive.map(jobs.add, [1], 5)


def test_starmap(alive):
    assert list(alive.starmap(jobs.add, [(1, 2), [3, 4], iter((5, 6))])) == [3, 7, 11]
    assert list(alive.starmap(lambda *a: len(a), [(), (1,), "abc"])) == [0, 1, 3]
    assert list(alive.starmap(pow, ((n, 2) for n in range(500)))) == [n * n for n in range(500)]
    with pytest.raises(TypeError):
        list(alive.starmap(jobs.add, [(1, 2), 5]))
    with pytest.raises(TypeError):
        list(alive.starmap(jobs.add, [(1, 2, 3)]))


def test_functions_of_all_sorts(alive):
    factor = 3
    assert list(alive.map(lambda x: x * factor, range(5))) == [0, 3, 6, 9, 12]
    assert list(alive.map(functools.partial(pow, 2), range(5))) == [1, 2, 4, 8, 16]
    assert list(alive.map(jobs.Holder(1), range(3))) == [1, 2, 3]
    assert list(alive.map(str.upper, "abc")) == ["A", "B", "C"]
    assert list(alive.map(jobs.Holder.made_by, range(3))) == [0, 1, 2]
    assert list(alive.map(operator.attrgetter("x"), [jobs.Point(1, 2)])) == [1]


def test_values_of_all_sorts(alive):
    items = [
        None,
        1.5,
        "é",
        b"b",
        [1],
        {"k": (1,)},
        {1},
        jobs.Point(1, 2),
        jobs.Colour.RED,
        1 << 100,
        jobs.Record("r"),
    ]
    items *= 30
    assert list(alive.map(jobs.same, items)) == items
    assert list(alive.map(jobs.same, map(jobs.Holder, range(100)), buffersize=7))[99].held == 99


def test_large_items(alive):
    data = bytes(1_000_000)
    assert list(alive.map(len, (data for _ in range(200)))) == [1_000_000] * 200
    assert sum(map(len, alive.map(bytes, [1_000_000] * 200))) == 200_000_000


def test_large_results_of_types_without_a_flat_form(alive):
    """Pickled ones: alone, and within others."""
    sizes = [10, 2_000_000, 20, 1_500_000, 3]
    assert [b.held for b in alive.map(lambda n: jobs.Holder("x" * n), sizes)] == [
        "x" * size for size in sizes
    ]
    held = list(alive.map(lambda n: {n: [jobs.Holder(bytes(n)), n]}, sizes))
    assert [(n, len(part[n][0].held)) for n, part in zip(sizes, held, strict=True)] == [
        (size, size) for size in sizes
    ]


@pytest.mark.parametrize("seed", range(3))
def test_random_sizes_and_windows(alive, seed):
    rng = random.Random(seed)
    for _ in range(30):
        count, window = rng.randrange(2000), rng.choice([None, 1, 2, 3, 10, 64, 100, 1000])
        assert list(alive.map(jobs.double, range(count), buffersize=window)) == [
            n * 2 for n in range(count)
        ]


def test_several_maps_at_once(alive):
    maps = [alive.map(jobs.add, range(5000), itertools.repeat(n)) for n in range(8)]
    for row, values in enumerate(zip(*maps, strict=True)):
        assert values == tuple(row + n for n in range(8))


def test_a_map_from_another_thread(alive):
    def body(index):
        for _ in range(5):
            assert list(alive.map(jobs.add, range(3000), itertools.repeat(index))) == list(
                range(index, index + 3000)
            )

    helpers.in_threads(4, body)


def test_an_iterator_may_go_to_another_thread(alive):
    results, given = alive.map(jobs.double, range(1000)), []
    given.append(next(results))
    thread = threading.Thread(target=lambda: given.extend(results))
    thread.start()
    thread.join()
    assert given == [n * 2 for n in range(1000)]


# ---- laziness ----


@pytest.mark.parametrize("size", [1, 2, 5, 64, 1000])
@pytest.mark.parametrize("how", ["map", "map_unordered", "starmap"])
def test_never_more_items_in_flight_than_buffersize(alive, size, how):
    items, taken = counting(range(3000))
    if how == "starmap":
        results = alive.starmap(jobs.same, zip(items), buffersize=size)
    else:
        results = getattr(alive, how)(jobs.same, items, buffersize=size)
    assert taken[0] <= size
    for given, _ in enumerate(results):
        assert taken[0] <= given + 1 + size
    assert taken[0] == 3000


def test_infinite_inputs(alive):
    for size in (1, 10, 5000):
        results = alive.map(jobs.double, itertools.count(), buffersize=size)
        assert list(itertools.islice(results, 3000)) == [n * 2 for n in range(3000)]
        del results
    results = alive.map(jobs.double, itertools.count())  # bounded by memory
    assert list(itertools.islice(results, 100)) == [n * 2 for n in range(100)]


def test_the_bound_without_a_buffersize(alive):
    """About a million items or 256 MiB."""
    items, taken = counting(itertools.count())
    results = alive.map(jobs.same, items)
    assert next(results) == 0
    assert taken[0] <= 1_200_000
    del results
    items, taken = counting(itertools.repeat(bytes(4_000_000)))
    results = alive.map(len, items)
    assert next(results) == 4_000_000
    if alive.kind != "thread":  # threads hold references, not bytes
        assert taken[0] <= 200
    del results


def test_an_input_that_needs_the_results(alive):
    """Each item is made of the previous result: it must come before the next item is taken."""
    state = [1]

    def feedback():
        for _ in range(50):
            yield state[-1]

    for result in alive.map(jobs.double, feedback(), buffersize=1):
        state.append(result)
    assert state == [2**n for n in range(51)]


def test_an_input_that_waits(alive):
    """What a slow input has given is worked on while it waits for more."""
    done = threading.Event()

    def slow():
        yield 1
        assert done.wait(LONG)
        yield 2

    def watch(future):
        if future.result() == "seen":
            done.set()

    def body(index):
        if index == 0:
            results.extend(alive.map(jobs.double, slow()))
        else:
            alive.submit(jobs.same, "seen").add_done_callback(watch)

    results = []
    helpers.in_threads(2, body)
    assert results == [2, 4]


def test_nothing_is_kept_of_a_map_that_is_over(alive):
    class Item:
        def __call__(self):
            return 1

    items = [Item() for _ in range(100)]
    watched = [weakref.ref(item) for item in items]
    assert sum(alive.map(lambda item: item(), items)) == 100
    del items
    alive.submit(jobs.double, 1).result(LONG)
    assert helpers.settles(
        lambda: helpers.gc.collect() * 0 or not any(ref() for ref in watched), 20
    )


# ---- errors ----


def test_errors_at_their_place(alive):
    results = alive.map(jobs.odd_or_fail, [1, 3, 4, 5, 6, 7])
    assert next(results) == 1
    assert next(results) == 3
    with pytest.raises(ValueError, match="4 is even"):
        next(results)
    assert next(results) == 5  # as the docstring says
    with pytest.raises(ValueError, match="6 is even"):
        next(results)
    assert list(results) == [7]
    assert list(results) == []


def test_every_item_fails(alive):
    results, failed = alive.map(jobs.odd_or_fail, range(0, 2000, 2)), 0
    while failed < 1000:
        with pytest.raises(ValueError, match=f"^{failed * 2} is even"):
            next(results)
        failed += 1
    assert next(results, "end") == "end"


@pytest.mark.parametrize(
    "error", [StopIteration, GeneratorExit, SystemExit, KeyboardInterrupt, MemoryError]
)
def test_special_exceptions_do_not_end_a_map_in_silence(alive, error):
    """Above all StopIteration: it must not look like the end of the results."""
    results = alive.map(lambda x: jobs.fail_with(error, x) if x == 3 else x, range(6))
    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    # RuntimeError, as for a generator that raises StopIteration
    with pytest.raises(RuntimeError if error is StopIteration else error):
        next(results, "the map ended in silence")


def test_an_unpicklable_item_fails_at_its_place(alive):
    items = [1, 2, jobs.Locked(), 4, jobs.Locked(), jobs.Locked(), 7]
    results = alive.map(lambda x: x if isinstance(x, int) else "object", items)
    if alive.kind == "thread":
        assert list(results) == [1, 2, "object", 4, "object", "object", 7]
        return
    for expected in (1, 2, None, 4, None, None, 7):
        if expected is not None:
            assert next(results) == expected
            continue
        with pytest.raises(pickle.PicklingError, match="Locked"):
            next(results)
    assert next(results, "end") == "end"


def test_an_unpicklable_result_fails_at_its_place(alive):
    results = alive.map(lambda x: threading.Lock() if x in (2, 3) else x, range(5))
    assert [next(results), next(results)] == [0, 1]
    for _ in range(2):
        if alive.kind == "thread":
            assert not next(results).locked()
        else:
            with pytest.raises(pickle.PicklingError, match="lock"):
                next(results)
    assert list(results) == [4]


@pytest.mark.parametrize("buffersize", [None, 1, 3, 100])
@pytest.mark.parametrize("where", [0, 1, 10, 500])
def test_an_input_that_raises(alive, where, buffersize):
    """Its own exception comes out; whatever was given before is a beginning of the results."""

    def broken():
        yield from range(where)
        raise jobs.Mistake("input")

    given = []
    with pytest.raises(jobs.Mistake) as caught:
        given.extend(iter_into(given, alive.map(jobs.double, broken(), buffersize=buffersize)))
    assert caught.value.code == "input"
    assert given == [n * 2 for n in range(len(given))]
    assert len(given) <= where


def iter_into(target, iterable):
    for item in iterable:
        target.append(item)
    return ()


def test_an_input_that_uses_the_same_pool(alive):
    inner = alive.map(jobs.double, range(1000), buffersize=10)
    assert list(alive.map(jobs.double, inner, buffersize=10)) == [n * 4 for n in range(1000)]
    assert list(
        alive.map(jobs.same, (alive.submit(jobs.double, n).result(LONG) for n in range(100)))
    ) == [n * 2 for n in range(100)]


# ---- timeouts, giving up, validation ----


def test_timeout(kind, gate):
    with plait.Pool(2, kind=kind) as pool:
        results = pool.map(
            lambda job: job(), [gate.wait, functools.partial(jobs.same, 1)], timeout=0.05
        )
        with pytest.raises(TimeoutError):
            next(results)
        gate.open()
        assert list(pool.map(jobs.same, range(3), timeout=LONG)) == [0, 1, 2]
        assert list(pool.map(jobs.same, [], timeout=0)) == []
        with pytest.raises(TypeError):
            pool.map(jobs.same, [1], timeout="soon")


@pytest.mark.parametrize("how", ["deleted", "closed", "cycle"])
def test_giving_an_iterator_up_cancels_the_rest(kind, gate, tmp_path, how):
    def mark(name):
        with open(name, "x"):
            return name

    with plait.Pool(1, kind=kind) as pool:
        count = 200
        paths = [str(tmp_path / f"ran{n}") for n in range(count)]
        results = pool.map(
            lambda job: job() if callable(job) else mark(job), [paths[0], gate.wait, *paths[1:]]
        )
        assert next(results) == paths[0]
        if how == "cycle":
            holder = [results]
            holder.append(holder)
            del holder
        if how == "closed":
            results.close()
            assert list(results) == []
            results.close()
        del results
        helpers.gc.collect()
        gate.open()
    assert len(list(tmp_path.glob("ran*"))) < count


def test_an_iterator_never_begun_lets_everything_run(kind, tmp_path):
    def mark(n, folder=str(tmp_path)):
        with open(f"{folder}/ran{n}", "x"):
            return n

    with plait.Pool(2, kind=kind) as pool:
        pool.map(mark, range(100))
        pool.map(mark, range(100, 200)).close()
    assert len(list(tmp_path.glob("ran*"))) == 200


def test_a_result_that_was_given_is_the_callers_alone(alive):
    def is_gone(watch):
        helpers.gc.collect()  # without a GIL, it is freed by the worker that made it, or by this
        return watch() is None

    for result in alive.map(jobs.Holder, range(20)):
        watch = weakref.ref(result)
        del result
        assert helpers.settles(functools.partial(is_gone, watch))


def test_a_pool_that_is_let_go_of_ends_though_its_map_is_still_read(kind):
    pool = plait.Pool(2, kind=kind)
    results = pool.map(jobs.double, range(1000))
    watch = weakref.ref(pool)
    del pool
    assert helpers.settles(lambda: watch() is None)
    assert list(results) == [n * 2 for n in range(1000)]


def test_shutdown_with_a_map_under_way(kind):
    with plait.Pool(2, kind=kind) as pool:
        results = pool.map(jobs.double, range(5000))
        first = next(results)
    assert [first, *results] == [n * 2 for n in range(5000)]
    pool = plait.Pool(2, kind=kind)
    results = pool.map(jobs.double, range(5000), buffersize=10)
    assert next(results) == 0
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        list(results)
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.map(jobs.double, [1])


def test_cancelling_with_a_map_under_way(kind, gate):
    pool = plait.Pool(1, kind=kind)
    results = pool.map(lambda job: job() if callable(job) else job, [0, gate.wait, *range(5000)])
    assert next(results) == 0
    pool.shutdown(wait=False, cancel_futures=True)
    gate.open()
    with pytest.raises(CancelledError):
        list(results)
    pool.shutdown()


def test_sizes_are_checked_as_in_the_standard_library(alive):
    for method in (alive.map, alive.map_unordered, alive.starmap):
        for chunksize in (0, -1):
            with pytest.raises(ValueError, match="chunksize must be >= 1"):
                method(jobs.same, [(1,)], chunksize=chunksize)
        for buffersize in (0, -1):
            with pytest.raises(ValueError, match="buffersize must be None or > 0"):
                method(jobs.same, [(1,)], buffersize=buffersize)
        for buffersize in ("1", 1.0):
            with pytest.raises(TypeError, match="buffersize must be an integer or None"):
                method(jobs.same, [(1,)], buffersize=buffersize)
        assert len(list(method(jobs.same, [(1,), (2,)], chunksize=100, buffersize=10**9))) == 2
    with pytest.raises(TypeError):
        alive.map()
    with pytest.raises(TypeError):
        alive.map(jobs.same, [1], unknown=1)


def test_the_iterator_itself(pool):
    results = pool.map(jobs.same, [1])
    assert iter(results) is results
    with pytest.raises(TypeError):
        type(results)()


# ---- reduce ----


def test_reduce(alive):
    assert alive.reduce(operator.add, range(10_000), 0) == sum(range(10_000))
    assert alive.reduce(operator.add, [], 5) == 5
    assert alive.reduce(operator.add, [1], 5) == 6
    assert alive.reduce(operator.add, "abc" * 1000, ">") == ">" + "abc" * 1000  # in order
    assert alive.reduce(lambda a, b: a + b, ([n] for n in range(1000)), []) == list(range(1000))
    assert alive.reduce(max, (n * 7919 % 10_007 for n in range(10_007)), -1) == 10_006


def test_reduce_is_deterministic(kind):
    """Sums of floats depend on the order of additions: it must not depend on the workers."""
    rng = random.Random(1)
    numbers = [rng.uniform(-1, 1) * 10 ** rng.randrange(-10, 10) for _ in range(30_000)]
    results = set()
    for workers in (1, 2, 5):
        with plait.Pool(workers, kind=kind) as pool:
            results |= {pool.reduce(operator.add, numbers, 0.0) for _ in range(3)}
    assert len(results) == 1
    with plait.Pool(2, kind="thread") as pool:
        assert pool.reduce(operator.add, iter(numbers), 0.0) in results


def test_reduce_with_errors(alive):
    with pytest.raises(TypeError):
        alive.reduce(operator.add, [1, "x"], 0)
    with pytest.raises(TypeError):
        alive.reduce(operator.add, 5, 0)
    with pytest.raises(jobs.Mistake):
        alive.reduce(lambda a, b: jobs.fail_with(jobs.Mistake, 1), range(1000), 0)


# ---- memory ----


@pytest.mark.parametrize("ordered", [True, False])
def test_a_huge_input_in_little_memory(pool, ordered):
    """Two million items of 50 bytes: what is in flight may be held, not all that was."""
    method = pool.map if ordered else pool.map_unordered
    for _ in method(jobs.same, (b"%050d" % n for n in range(100_000)), buffersize=10_000):
        pass
    before, peak = helpers.memory_of_process(), 0
    for place, _ in enumerate(
        method(jobs.same, (b"%050d" % n for n in range(500_000)), buffersize=10_000)
    ):
        if place % 50_000 == 0:
            peak = max(peak, helpers.memory_of_process())
    assert peak - before < 15_000_000


def test_a_consumer_slower_than_the_workers(pool):
    """Large results of small items are bounded by buffersize even if nobody fetches them."""
    results = pool.map(bytes, itertools.repeat(1_000_000), buffersize=20)
    for _ in range(300):  # the allocators find their size
        next(results)
    before = helpers.memory_of_process()
    for _ in range(1000):
        next(results)
    # Of 1,000 MB; without a GIL what one thread frees for another waits for that one's turn.
    limit = 300_000_000 if helpers.FREE_THREADED else 80_000_000
    assert helpers.memory_of_process() - before < limit
    del results
