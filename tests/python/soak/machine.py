"""One thread uses one pool, and a model says beforehand what must come out.

Calls that wait for a gate hold the workers, so that at each moment it is known which calls run,
which are queued, which can be cancelled, and how each will end.
"""

import concurrent.futures as cf
import itertools
import os
import tempfile
from pathlib import Path

import hypothesis
import hypothesis.stateful
import plait
import tasks
from crowd import LONG
from helpers import settles
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

WORKERS = 2
NUMBERS = st.integers(-(2**70), 2**70)
TEXTS = st.text("aä€𝄞")
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False) | TEXTS | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner) | st.builds(tasks.Box, inner),
    max_leaves=8,
)


class Known:
    """A future and what the model knows of it: how it will end, and whether it has to."""

    def __init__(self, future, outcome, gate=None):
        self.future, self.outcome, self.gate = future, outcome, gate
        self.cancelled = False
        self.called = []
        future.add_done_callback(self.called.append)

    def check(self):
        if self.cancelled:
            assert self.future.cancelled()
        elif isinstance(self.outcome, BaseException):
            error = self.future.exception(LONG)
            assert type(error) is type(self.outcome), repr(error)
            assert error.args == self.outcome.args
        else:
            assert self.future.result(LONG) == self.outcome
            assert self.future.exception(0) is None
        assert self.future.done()
        assert not self.future.running()
        assert settles(lambda: self.called == [self.future], LONG)


class Machine(RuleBasedStateMachine):
    """Rules of one pool's life; `kind` and `feed` are set by run()."""

    kind = "thread"
    feed = staticmethod(lambda: None)  # called at every step
    known = Bundle("known")

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.pool = plait.Pool(WORKERS, kind=self.kind)
        self.pool.submit(tasks.add, 1, 2).result(LONG)
        self.gates = (Path(self.folder.name, str(n)) for n in itertools.count())
        self.holding = []  # calls that wait at gates, in the order of submission
        self.all = []
        self.closed = False

    def submit(self, outcome, *call, gate=None):
        one = Known(self.pool.submit(*call), outcome, gate)
        self.all.append(one)
        return one

    def is_blocked(self):
        """Whether every worker is at a gate."""
        return len(self.holding) >= WORKERS

    # -- calls --

    @precondition(lambda self: not self.closed)
    @rule(target=known, value=VALUES)
    def submit_value(self, value):
        return self.submit(value, tasks.same, value)

    @precondition(lambda self: not self.closed)
    @rule(
        target=known, value=VALUES, priority=st.integers(-2, 2), deadline=st.none() | st.just(LONG)
    )
    def submit_under_options(self, value, priority, deadline):
        view = self.pool.options(priority=priority, deadline=deadline)
        self.all.append(Known(view.submit(tasks.same, value), value))
        return self.all[-1]

    @precondition(lambda self: not self.closed and self.is_blocked())
    @rule(target=known, value=VALUES)
    def submit_too_late(self, value):
        """No worker is free before its deadline."""
        one = Known(self.pool.options(deadline=0.001).submit(tasks.same, value), None)
        one.outcome = one.future.exception(LONG)
        assert type(one.outcome) is plait.DeadlineExceeded, repr(one.outcome)
        self.all.append(one)
        return one

    @precondition(lambda self: not self.closed and len(self.holding) < WORKERS)
    @rule(target=known)
    def stop_by_a_deadline(self):
        future = self.pool.options(deadline=0.01).submit(tasks.spin)
        one = Known(future, future.exception(LONG))
        assert type(one.outcome) is plait.DeadlineExceeded, repr(one.outcome)
        self.all.append(one)
        return one

    @precondition(lambda self: not self.closed)
    @rule(target=known, number=NUMBERS)
    def submit_trouble(self, number):
        return self.submit(tasks.Trouble(number), tasks.trouble, number)

    @precondition(lambda self: not self.closed and len(self.holding) < WORKERS)
    @rule(target=known)
    def hold_a_worker(self):
        gate = next(self.gates)
        one = self.submit("held", tasks.hold, os.fspath(gate), gate=gate)
        self.holding.append(one)
        assert settles(one.future.running, LONG)
        return one

    @precondition(lambda self: self.holding)
    @rule(data=st.data())
    def open_a_gate(self, data):
        one = self.holding.pop(data.draw(st.integers(0, len(self.holding) - 1)))
        one.gate.touch()
        one.check()

    @rule(one=known)
    def ask(self, one):
        if one in self.holding or (self.is_blocked() and not one.future.done()):
            assert not one.future.done()
            try:
                one.future.result(0)
            except TimeoutError:
                return
            raise AssertionError("a call that cannot have ended has a result")
        one.check()

    @rule(one=known)
    def cancel(self, one):
        """What runs or has ended cannot be; what is queued behind held workers must be."""
        queued = self.is_blocked() and not one.future.done() and one not in self.holding
        cancelled = one.future.cancel()
        assert cancelled == one.future.cancelled()
        assert not (one in self.holding and cancelled)
        assert cancelled or not queued
        one.cancelled = cancelled

    @rule(one=known)
    def interrupt_what_is_held(self, one):
        if one not in self.holding:
            return
        assert one.future.interrupt()
        self.holding.remove(one)
        one.outcome = plait.Interrupted()
        one.check()
        assert not one.future.interrupt()

    @rule(some=st.lists(known, max_size=5))
    def wait(self, some):
        futures = {one.future for one in some}
        done, left = cf.wait(futures, 0)
        assert done | left == futures
        assert all(future.done() for future in done)
        if not self.holding:
            done, left = cf.wait(futures, LONG)
            assert done == futures
            assert set(cf.as_completed(futures, LONG)) == futures

    # -- maps --

    @precondition(lambda self: not self.closed and not self.is_blocked())
    @rule(numbers=st.lists(NUMBERS, max_size=60), buffersize=st.none() | st.integers(1, 9))
    def map(self, numbers, buffersize):
        assert list(self.pool.map(tasks.same, numbers, buffersize=buffersize)) == numbers
        unordered = self.pool.map_unordered(tasks.same, numbers, buffersize=buffersize)
        assert sorted(unordered) == sorted(numbers)
        assert self.pool.reduce(tasks.add, numbers, 7) == sum(numbers) + 7

    @precondition(lambda self: not self.closed and not self.is_blocked())
    @rule(count=st.integers(0, 40), taken=st.integers(0, 40))
    def map_and_drop(self, count, taken):
        results = self.pool.map(tasks.same, range(count), buffersize=8)
        assert list(itertools.islice(results, taken)) == list(range(min(count, taken)))

    @precondition(lambda self: not self.closed and not self.is_blocked())
    @rule(n=st.integers(0, 6))
    def nest(self, n):
        assert self.pool.submit(tasks.fibonacci, n, self.pool).result(LONG) == [
            0, 1, 1, 2, 3, 5, 8,
        ][n]  # fmt: skip

    # -- the end, and a new beginning --

    @precondition(lambda self: not self.closed)
    @rule(cancel=st.booleans())
    def close(self, cancel):
        """What is held runs on; what is queued is cancelled, or runs."""
        blocked = self.is_blocked()
        self.pool.shutdown(wait=False, cancel_futures=cancel)
        self.closed = True
        for one in self.all:
            if cancel and one not in self.holding and not one.cancelled:
                assert not blocked or one.future.done()
                one.cancelled = one.future.cancelled()

    @precondition(lambda self: self.closed)
    @rule()
    def is_closed(self):
        try:
            self.pool.submit(tasks.same, 1)
        except RuntimeError as error:
            told = str(error)
        assert told == "cannot schedule new futures after shutdown"

    @precondition(lambda self: self.closed)
    @rule()
    def begin_anew(self):
        self.finish()
        self.pool = plait.Pool(WORKERS, kind=self.kind)
        self.pool.submit(tasks.add, 1, 2).result(LONG)
        self.closed = False

    @invariant()
    def what_is_held_runs(self):
        self.feed()
        for one in self.holding:
            assert one.future.running()
            assert not one.future.done()

    def finish(self):
        while self.holding:
            self.holding.pop().gate.touch()
        for one in self.all:
            one.check()
        self.all.clear()
        self.pool.shutdown()

    def teardown(self):
        try:
            self.finish()
        finally:
            for one in self.holding:
                one.gate.touch()
            self.pool.shutdown()
            self.folder.cleanup()


def run(kind, seed, examples, steps, feed):
    """So many random lives of a machine; what Hypothesis raises shows the shortest that fails."""
    Machine.kind, Machine.feed = kind, staticmethod(feed)
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    hypothesis.stateful.run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=settings)
