"""Bad input: a clear exception, on the right future, and a pool that goes on working."""

import concurrent.futures as cf
import pickle
import sys
import threading
import types

import helpers
import jobs
import plait
import pytest
from plait._options import Options

LONG = helpers.LONG


def fails(future, type_, *words):
    """The future's exception, which must be of the type and its text have all the words."""
    error = future.exception(LONG)
    assert isinstance(error, type_), repr(error)
    text = str(error)
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"
    with pytest.raises(type_):
        future.result(LONG)
    return error


WAY_OUT = "kind='thread'"


# ---- what cannot travel ----


def test_an_unpicklable_argument(alive):
    lock = threading.Lock()
    before = alive.submit(jobs.double, 1)
    for future, word in [
        (alive.submit(type, lock), "lock"),
        (alive.submit(jobs.arguments, 1, named=[lock]), "lock"),
        (alive.submit(jobs.arguments, {"the key": (1, lock)}), "the key"),
        (alive.submit(jobs.same, jobs.Locked()), "Locked"),
        (alive.submit(jobs.same, jobs.Holder(lock)), "held"),
        (alive.submit(jobs.same, (n for n in ())), "genexpr"),
    ]:
        if alive.kind == "thread":
            assert future.exception(LONG) is None
        else:
            error = fails(future, pickle.PicklingError, word, WAY_OUT)
            assert error.__cause__ is not None
            assert not future.cancelled()
            assert not future.cancel()
    assert before.result(LONG) == 2
    assert alive.submit(jobs.double, 2).result(LONG) == 4


def test_a_failed_future_is_a_future(pool):
    """wait(), callbacks and all the rest work on one that never reached a worker."""
    if pool.kind == "thread":
        future = pool.submit(jobs.fail, ValueError())
    else:
        future = pool.submit(jobs.same, jobs.Locked())
    called = []
    cf.wait([future], LONG)
    future.add_done_callback(called.append)
    assert called == [future]
    assert future.done()
    assert not future.running()
    assert "raised" in repr(future)


def test_a_function_that_cannot_travel(alive):
    lock = threading.Lock()

    def closure():
        return lock.locked()

    space = {"__name__": "__main__", "held": lock}
    exec("def task(): return held.locked()", space)
    for function, name, part in [
        (closure, "closure", "lock"),
        (space["task"], "task", "held"),
        (jobs.Holder(lock).double, "", "lock"),
        (lambda x=lock: x.locked(), "lambda", "lock"),
        (lock.locked, "", "lock"),
    ]:
        future = alive.submit(function)
        if alive.kind == "thread":
            future.exception(LONG)
            continue
        fails(future, pickle.PicklingError, name, part, WAY_OUT)
        with pytest.raises(pickle.PicklingError, match=part):
            list(alive.map(function, [1]))


def test_an_unpicklable_result(alive):
    for function, word in [
        (threading.Lock, "lock"),
        (lambda: [1, {"the key": threading.Lock()}], "the key"),
        (jobs.Locked, "Locked"),
        (lambda: [(n for n in ())], "genexpr"),
        (lambda: [sys._getframe()], "frame"),
    ]:
        future = alive.submit(function)
        if alive.kind == "thread":
            assert future.result(LONG) is not None
        else:
            fails(future, pickle.PicklingError, word, "cannot travel")


def test_an_argument_that_cannot_be_read_by_the_worker(alive):
    """It is pickled without a complaint; what goes wrong over there is told by the future."""

    class Trap:
        def __reduce__(self):
            return jobs.fail_with, (jobs.Mistake, "over there")

    if alive.kind != "thread":
        error = fails(alive.submit(jobs.same, Trap()), jobs.Mistake)
        assert error.code == "over there"
        with pytest.raises(jobs.Mistake):
            list(alive.map(jobs.same, [Trap()]))
    else:
        assert type(alive.submit(jobs.same, Trap()).result(LONG)) is Trap


def test_a_result_that_cannot_be_read_here(alive):
    class Trap:
        def __reduce__(self):
            return jobs.fail_with, (jobs.Mistake, "back here")

    if alive.kind != "thread":
        for _ in range(2):
            fails(alive.submit(lambda: [Trap()]), jobs.Mistake)
        results = alive.map(lambda x: Trap() if x == 1 else x, range(3))
        assert next(results) == 0
        with pytest.raises(jobs.Mistake):
            next(results)
        assert list(results) == [2]


def test_a_function_of_a_module_that_only_this_interpreter_has(alive):
    """Either it works, or the module is named."""
    module = types.ModuleType("made_here_only")
    exec("def task(): return 'worked'\nclass Thing: pass", vars(module))
    sys.modules["made_here_only"] = module
    try:
        future = alive.submit(module.task)
        error = future.exception(LONG)
        if error is not None:
            fails(future, (ImportError, pickle.PicklingError), "made_here_only")
        else:
            assert future.result() == "worked"
        error = alive.submit(type, module.Thing()).exception(LONG)
        assert error is None or "made_here_only" in str(error)
    finally:
        del sys.modules["made_here_only"]


def test_state_methods_that_raise(alive):
    class Angry:
        def __getstate__(self):
            raise jobs.Mistake("while pickling")

    class Quitter:
        def __reduce__(self):
            raise SystemExit("while pickling")

    if alive.kind != "thread":
        error = fails(alive.submit(jobs.same, Angry()), pickle.PicklingError, "Angry")
        assert isinstance(error.__cause__, jobs.Mistake)
        with pytest.raises(SystemExit):  # not an Exception: it is the submitter's
            alive.submit(jobs.same, Quitter())
        error = alive.submit(lambda: [Quitter()]).exception(LONG)
        assert isinstance(error, SystemExit)


# ---- what tasks do ----


def test_exit_in_a_worker(alive):
    for function in (sys.exit, exit):
        error = fails(alive.submit(function, 3), SystemExit)
        assert error.code == 3
    assert fails(alive.submit(sys.exit), SystemExit).code is None
    assert list(alive.map(jobs.double, range(10))) == [n * 2 for n in range(10)]
    results = alive.map(lambda x: sys.exit(x) if x == 1 else x, range(3))
    assert next(results) == 0
    with pytest.raises(SystemExit):
        next(results)
    assert next(results) == 2


def test_a_keyboard_interrupt_of_the_tasks_own(alive):
    fails(alive.submit(jobs.fail, KeyboardInterrupt()), KeyboardInterrupt)


def test_a_recursion_error(alive):
    for _ in range(3):
        error = fails(alive.submit(jobs.recurse), RecursionError)
        assert error.__traceback__ is not None

    def deep(n=0):
        return deep(n + 1) + 1

    fails(alive.submit(deep), RecursionError)
    fails(
        alive.submit(lambda: eval("(" * 5000 + ")" * 5000)),
        (SyntaxError, MemoryError, RecursionError),
    )

    def endless():
        class Endless:
            def __repr__(self):
                return repr(self)

        return repr(Endless())

    fails(alive.submit(endless), RecursionError)


def test_a_result_nested_too_deep(alive):
    def nested(depth):
        made = None
        for _ in range(depth):
            made = [made]
        return made

    if alive.kind != "thread":
        fails(alive.submit(nested, 200_000), (RecursionError, pickle.PicklingError))
        fails(alive.submit(jobs.same, nested(200_000)), (RecursionError, pickle.PicklingError))
    deep = 2000 if sys.version_info >= (3, 13) else 1000  # C code has 1500 levels in CPython 3.12
    made, depth = alive.submit(nested, deep).result(LONG), 0
    while made is not None:
        made, depth = made[0], depth + 1
    assert depth == deep


def test_too_much_memory(alive):
    fails(alive.submit(bytes, 1 << 62), MemoryError)
    fails(alive.submit(lambda: [None] * (1 << 60)), MemoryError)


def test_a_worker_meddles_with_its_interpreter(alive):
    def meddle():
        import builtins
        import sys

        sys.path.insert(0, "nowhere")
        sys.setrecursionlimit(500)
        builtins.meddled = True
        sys.modules.pop("pickle", None)
        return True

    if alive.kind != "thread":  # threads would hit this very interpreter
        assert alive.submit(meddle).result(LONG)
        assert not hasattr(__builtins__, "meddled")
    assert alive.submit(lambda: [jobs.Holder(1)]).result(LONG)[0].held == 1


def test_a_task_that_shuts_its_own_pool_down(kind):
    pool = plait.Pool(2, kind=kind)
    assert pool.submit(lambda: pool.shutdown() or "done").result(LONG) == "done"
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(jobs.double, 1)
    pool.shutdown()


# ---- initializers ----


def test_an_initializer_prepares_every_worker(kind):
    def prepare(value, *, also=0):
        jobs.prepared = value

    def ask(barrier=None):
        return getattr(jobs, "prepared", None)

    jobs.prepared = None
    with plait.Pool(2, kind=kind, initializer=prepare, initargs=("ready",)) as pool:
        assert set(pool.map(lambda n: ask(), range(1000))) == {"ready"}
    assert jobs.prepared == ("ready" if kind == "thread" else None)
    del jobs.prepared


@pytest.mark.parametrize(
    "error", [ValueError("in it"), SystemExit(3), jobs.Mistake(9)], ids=lambda e: type(e).__name__
)
def test_an_initializer_that_raises(kind, gate, error):
    def prepare(wait, what):
        wait()
        raise what

    pool = plait.Pool(2, kind=kind, initializer=prepare, initargs=(gate.wait, error))
    pending = [pool.submit(jobs.double, n) for n in range(10)]
    results = pool.map(jobs.double, range(1000))
    gate.open()
    for future in pending:
        broken = fails(future, plait.BrokenPool, type(error).__name__)
        assert type(broken.__cause__) is type(error)
        assert broken.__cause__.args == error.args
        assert broken.reason is broken.__cause__
    with pytest.raises(plait.BrokenPool) as caught:
        next(results)
    assert type(caught.value.__cause__) is type(error)
    assert issubclass(plait.BrokenPool, cf.BrokenExecutor)
    for action in (lambda: pool.submit(jobs.double, 1), lambda: pool.map(jobs.double, [1])):
        with pytest.raises(plait.BrokenPool) as caught:
            action()
        assert type(caught.value.__cause__) is type(error)
    assert "in it" in str(caught.value) or type(error) is not ValueError
    pool.shutdown()
    with plait.Pool(1, kind=kind) as another:
        assert another.submit(jobs.double, 1).result(LONG) == 2


def test_an_initializer_that_cannot_travel_or_be_called(kind):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="callable"):
        plait.Pool(kind=kind, initializer=5)
    with pytest.raises(TypeError):
        plait.Pool(kind=kind, initializer=print, initargs=5)
    if kind != "thread":
        with pytest.raises(pickle.PicklingError, match="lock"):
            plait.Pool(kind=kind, initializer=print, initargs=(lock,))
        with pytest.raises(pickle.PicklingError, match="lock"):
            plait.Pool(kind=kind, initializer=lambda: lock)


# ---- the pool itself ----


def test_submit_after_shutdown(kind):
    pool = plait.Pool(2, kind=kind)
    done = pool.submit(jobs.double, 1)
    pool.shutdown()
    pool.shutdown()  # again: nothing
    assert done.result(0) == 2
    for action in (lambda: pool.submit(jobs.double, 1), lambda: pool.map(jobs.double, [1])):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            action()
    unused = plait.Pool(2, kind=kind)
    unused.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        unused.submit(jobs.double, 1)


def test_submit_while_another_thread_shuts_down(kind):
    """Every submit either runs or is refused; nothing is lost in between."""
    for _ in range(20 if kind == "thread" else 4):
        pool, futures, refused = plait.Pool(2, kind=kind), [], []

        def body(index, pool=pool, futures=futures, refused=refused):
            if index == 0:
                pool.shutdown(wait=False)
                return
            try:
                while True:
                    futures.append(pool.submit(jobs.double, 2))
            except RuntimeError as error:
                refused.append(error)

        helpers.in_threads(3, body)
        assert len(refused) == 2
        assert all(future.result(LONG) == 4 for future in futures)
        pool.shutdown()


@pytest.mark.parametrize(
    ("error", "word", "arguments"),
    [
        (ValueError, "kind must be one of", {"kind": "fibre"}),
        (ValueError, "kind", {"kind": None}),
        (ValueError, "max_workers must be greater than 0", {"max_workers": 0}),
        (ValueError, "max_workers", {"max_workers": -1}),
        (TypeError, ".", {"max_workers": "2"}),
        (TypeError, ".", {"max_workers": 1.5}),
        (TypeError, ".", {"thread_name_prefix": 5}),
        (TypeError, "unknown", {"unknown": 1}),
    ],
)
def test_bad_arguments_of_a_pool(error, word, arguments):
    with pytest.raises(error, match=word):
        plait.Pool(**arguments)
    with pytest.raises(ValueError, match="kind must") as caught:
        plait.Pool(kind="x")
    assert "'thread'" in str(caught.value)
    assert "'interpreter'" in str(caught.value)


def test_other_misuse(kind):
    with pytest.raises((OverflowError, ValueError, MemoryError, OSError)):
        plait.Pool(1 << 70, kind=kind)
    half = plait.Pool.__new__(plait.Pool)
    for action in (
        lambda: half.submit(jobs.double, 1),
        lambda: half._map(jobs.double, iter([1]), False, True, None, 0, Options(), False),
        lambda: half._submit_with(Options(), jobs.double, 1),
    ):
        with pytest.raises(RuntimeError, match="not initialised"):
            action()
    wrong = (0, (), (0, None), (0, None, 0, 1), ("0", None, 0), (0, "1", 0), (0, None, "0"))
    for options in wrong:
        with pytest.raises(TypeError):
            half._submit_with(options, jobs.double, 1)
    with pytest.raises(ValueError, match="retries cannot be -1"):
        half._submit_with((0, None, -1), jobs.double, 1)
    half._close(True)
    half._join()
    with plait.Pool(1, kind=kind) as pool:
        assert pickle.loads(pickle.dumps(pool)).submit(jobs.double, 1).result(LONG) == 2
        rebuild, (identity, process, *rest) = pool.__reduce__()
        with pytest.raises(RuntimeError, match="another process"):
            rebuild(identity, process + 1, *rest)
        with pytest.raises(RuntimeError, match="gone"):
            rebuild(1 << 60, process, *rest)
        with pytest.raises(TypeError):
            pool._open("thread", 1, "", {}, None, ())
        assert kind in repr(pool)
        assert pool.submit(jobs.double, 1).result(LONG) == 2


AT_EXIT = """
import sys, plait
class Late:
    def __init__(self, pool): self.pool = pool
    def __del__(self):
        try:
            self.pool.submit(abs, -1)
            print("accepted")
        except RuntimeError as error:
            print("refused:", error)
pool = plait.Pool(1, kind=sys.argv[1])
print(pool.submit(abs, -1).result())
late = Late(pool)
if sys.argv[2] == "cycle":
    late.me = late
elif sys.argv[2] == "module":
    import types; plait.late = late; del late
elif sys.argv[2] == "atexit":
    import atexit; atexit.register(late.__del__); Late.__del__ = lambda self: None
elif sys.argv[2].startswith("default"):
    plait.submit
    if sys.argv[2] == "default pool": plait.submit(abs, -1).result()
    class Default:
        def __del__(self, plait=plait):
            try: print("accepted", plait.submit(abs, -1))
            except RuntimeError as error: print("refused:", error)
    late.pool.shutdown(); late = None; late = Default()
"""


@pytest.mark.parametrize(
    "where", ["global", "cycle", "module", "atexit", "default", "default pool"]
)
def test_submit_while_the_interpreter_ends(kind, where):
    if helpers.FREE_THREADED and where in ("cycle", "default", "default pool"):
        pytest.skip("a free-threaded CPython clears modules, or calls no __del__ at all, by then")
    lines = helpers.run_quietly(AT_EXIT, kind, where)
    assert lines[0] == "1"
    assert len(lines) >= 2
    assert all(line.startswith("refused:") for line in lines[1:])
