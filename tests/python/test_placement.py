"""kind="auto" where interpreters serve: functions that those cannot run go to processes."""

import asyncio
import functools
import importlib
import os
import sys
import textwrap
import types
from pathlib import Path

import helpers
import plait
import pytest
from plait import _kinds, _placement, _plait, _trust

pytestmark = pytest.mark.skipif(
    helpers.FREE_THREADED or sys.version_info < (3, 13, 1),
    reason='kind="auto" takes interpreters on GIL builds from 3.13.1 on',
)

NEEDING = """
import thing
from thing import made as alias

def use(x=0): return thing.double(x), thing.where()
"""

THING = """
import os

def double(x): return 2 * x
def where(): return os.getpid()
class Made:
    def run(self, x): return x
made = Made()
"""


@pytest.fixture
def thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package that interpreter workers refuse, and modules of the program that need it."""
    (tmp_path / "thing.py").write_text(THING)
    (tmp_path / "needing.py").write_text(NEEDING)
    (tmp_path / "indirect.py").write_text("import needing\ndef use(x): return needing.use(x)\n")
    (tmp_path / "free.py").write_text("def use(x): return x\n")
    monkeypatch.syspath_prepend(tmp_path)
    why = "the test says so"
    monkeypatch.setitem(_kinds.REFUSED, "thing", why)
    refused = plait.Isolation("thing", "refused", why, _trust.INSTEAD)
    monkeypatch.setitem(_trust.REFUSALS, "thing", refused)
    for name in ("thing", "needing", "indirect", "free"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.import_module(name)
    return sys.modules["thing"]


def lazily(x):
    import thing

    return thing.double(x), os.getpid()


def nested(x):
    def inner():
        from thing import double

        return double(x)

    return inner(), os.getpid()


def calling(one):
    return lambda x: (one, x)


def with_default(one):
    def call(x, default=one):
        return default, x

    return call


def at_home(x):
    return x, os.getpid()


def main_class(module):
    """A class as a script has it, which comes by value."""
    namespace = {"__name__": "__main__", "helper": module}
    exec("class Own:\n    def run(self, x): return helper.double(x)\n", namespace)
    return namespace["Own"]


NEED_IT = {
    "import inside": lambda thing: lazily,
    "import deeper inside": lambda thing: nested,
    "module in a cell": lambda thing: lambda x: thing.double(x) + 1,
    "function in a cell": lambda thing: calling(thing.double),
    "instance in a cell": lambda thing: calling(thing.made),
    "instance as a default": lambda thing: with_default(thing.made),
    "its own function": lambda thing: thing.double,
    "its own method": lambda thing: thing.made.run,
    "its own class": lambda thing: thing.Made,
    "partial": lambda thing: functools.partial(thing.double, 1),
    "partial's argument": lambda thing: functools.partial(at_home, thing.made),
    "module of the program": lambda thing: sys.modules["needing"].use,
    "module's module": lambda thing: sys.modules["indirect"].use,
    "class of a script": lambda thing: main_class(thing)().run,
}


@pytest.mark.parametrize("how", NEED_IT)
def test_what_needs_the_package_is_seen(thing, how):
    found = _placement.refusal("probe", NEED_IT[how](thing))
    assert found is not None
    assert found.package == "thing"
    assert _placement.refusal("force", NEED_IT[how](thing)) is found


def test_what_does_not_need_it_is_left_alone(thing):
    class Proxy:
        """Says that it is something else, and fails when it is asked."""

        @property
        def __class__(self):
            raise RuntimeError("nothing is bound to this proxy")

    def unbound():
        return later

    def cyclic(x):
        return cyclic, proxy

    proxy = Proxy()
    free = sys.modules["free"].use
    for fn in (len, free, at_home, unbound, cyclic, functools.partial(max, 1), "text".upper, proxy):
        assert _placement.refusal("probe", fn) is None, fn
    later = None


def test_only_such_functions_go_to_processes(thing):
    here = os.getpid()
    with plait.Pool(2) as pool:
        assert pool.kind == "interpreter"
        before = pool.reason
        assert pool.submit(at_home, 1).result(helpers.LONG) == (1, here)
        assert pool.reason == before
        doubled, there = pool.submit(lazily, 2).result(helpers.LONG)
        assert (doubled, there != here) == (4, True)
        assert pool.reason.startswith(before)
        assert "thing, which interpreter workers refuse: the test says so" in pool.reason
        assert pool.submit(at_home, 3).result(helpers.LONG) == (3, here)
        assert pool.submit(lazily, x=5).result(helpers.LONG)[0] == 10


def test_each_way_to_call(thing):
    here = os.getpid()

    async def collect(pool):
        return [result async for result in pool.amap(lazily, range(3))]

    def total(x, y):
        import thing

        return thing.double(0) + x + y

    with plait.Pool(2) as pool:
        urgent = pool.options(priority=1, deadline=60)
        assert urgent.submit(lazily, x=2).result(helpers.LONG)[0] == 4
        for results in (
            pool.map(lazily, range(3)),
            urgent.map(lazily, range(3)),
            pool.starmap(lazily, [(x,) for x in range(3)]),
            asyncio.run(collect(pool)),
        ):
            doubled, pids = zip(*results, strict=True)
            assert doubled == (0, 2, 4)
            assert here not in pids
        assert {one for one, _ in pool.map_unordered(lazily, range(3))} == {0, 2, 4}
        assert pool.reduce(total, range(100), 0) == sum(range(100))
        assert pool.submit(os.getpid).result(helpers.LONG) == here


def test_it_ends_with_its_pool(thing):
    pool = plait.Pool(2)
    pids = {pid for _, pid in pool.map(lazily, range(100))}
    waiting = [pool.submit(lazily, number) for number in range(50)]
    pool.shutdown()
    _plait._end_kept(False)
    assert [future.result(0)[0] for future in waiting] == [2 * number for number in range(50)]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(lazily, 1)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(lazily, [1])
    pool.shutdown()


def test_interrupted_pools_stop_both(thing):
    def wait():
        import time

        import thing

        while thing:
            time.sleep(0.01)

    pool = plait.Pool(2)
    future = pool.submit(wait)
    while not future.running():
        pass
    with pytest.raises(KeyboardInterrupt), pool:
        raise KeyboardInterrupt
    assert isinstance(future.exception(helpers.LONG), plait.Interrupted)


def test_an_initializer_that_needs_it_takes_all_to_processes(thing):
    def prepare():
        import thing

        thing.prepared = 7

    def prepared():
        import thing

        return thing.prepared

    with plait.Pool(1, initializer=prepare) as pool:
        assert pool.kind == "process"
        assert "its initializer needs thing, which interpreter workers refuse" in pool.reason
        assert pool.submit(prepared).result(helpers.LONG) == 7


def test_a_kind_that_was_asked_for_stays(thing):
    with plait.Pool(1, kind="interpreter") as pool:
        assert pool.submit(lazily, 1).result(helpers.LONG) == (2, os.getpid())
    with plait.Pool(1, isolation="off") as pool:
        assert pool.submit(lazily, 1).result(helpers.LONG) == (2, os.getpid())


TRIED = """
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    import twice                            # an extension module, which one interpreter bears
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)  # by which it knows
    import plait

    def use(x):
        return twice.__name__, os.getpid()

    with plait.Pool(1) as pool:
        name, pid = pool.submit(use, 1).result()
        print(name, pid != os.getpid(), pool.submit(os.getpid).result() == os.getpid())
        print(pool.reason)
"""


def test_a_package_that_does_not_pass_its_trial(tmp_path):
    helpers.compile_module(tmp_path, "twice", "TWICE", "unfit.c")
    env = {"XDG_CACHE_HOME": os.fspath(tmp_path)}
    lines = helpers.run_quietly(textwrap.dedent(TRIED), os.fspath(tmp_path), env=env)
    assert lines[0] == "twice True True"
    assert "twice, which interpreter workers refuse" in lines[1]
