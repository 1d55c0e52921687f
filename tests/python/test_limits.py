"""What only process workers have: limits, and options of the system."""

import os
import signal

import helpers
import plait
import pytest

LONG = helpers.LONG


def process_pool(workers=1, **options):
    return plait.Pool(workers, kind="process", **options)


def take(size):
    return len(bytes(size))


def pid_of(_=None):
    return os.getpid()


# ---- memory_limit ----


def test_a_task_that_wants_too_much_gets_an_error_and_the_next_a_fresh_worker():
    with process_pool(memory_limit="256MB") as pool:
        before = pool.submit(pid_of).result(LONG)
        assert pool.submit(take, 10_000_000).result(LONG) == 10_000_000
        assert pool.submit(pid_of).result(LONG) == before
        error = pool.submit(take, 500_000_000).exception(LONG)
        assert type(error) is MemoryError
        assert "memory_limit is 256,000,000 bytes" in error.__notes__[0]
        assert pool.submit(pid_of).result(LONG) != before
        assert pool.submit(take, 10_000_000).result(LONG) == 10_000_000


def test_a_map_goes_on_after_an_item_that_wants_too_much():
    sizes = [10, 20, 500_000_000, 30, 40]
    with process_pool(memory_limit="256MB") as pool:
        for size in sizes[:2]:
            assert pool.submit(take, size).result(LONG) == size
        results = pool.map(take, sizes, chunksize=1)
        assert [next(results), next(results)] == [10, 20]
        with pytest.raises(MemoryError):
            next(results)
        assert [pool.submit(take, size).result(LONG) for size in sizes[3:]] == [30, 40]


def test_without_a_limit_a_memory_error_is_an_error_like_others():
    def raises():
        raise MemoryError("mine")

    with process_pool() as pool:
        before = pool.submit(pid_of).result(LONG)
        error = pool.submit(raises).exception(LONG)
        assert (type(error), error.args) == (MemoryError, ("mine",))
        assert not hasattr(error, "__notes__")
        assert pool.submit(pid_of).result(LONG) == before


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2_000_000_000),
        ("512MiB", 512 << 20),
        ("1.5 gib", 3 << 29),
        ("100000k", 100_000_000),
        ("80000000", 80_000_000),
        (1 << 30, 1 << 30),
    ],
)
def test_sizes(text, size):
    def limit():
        import resource

        return resource.getrlimit(resource.RLIMIT_DATA)[0]

    with process_pool(memory_limit=text) as pool:
        assert pool.submit(limit).result(LONG) == size


# ---- max_tasks_per_worker ----


def test_a_worker_is_replaced_after_its_tasks():
    with process_pool(max_tasks_per_worker=3) as pool:
        pids = [pool.submit(pid_of).result(LONG) for _ in range(9)]
    groups = [set(pids[at : at + 3]) for at in (0, 3, 6)]
    assert [len(group) for group in groups] == [1, 1, 1]
    assert len(set.union(*groups)) == 3


def test_items_of_a_map_count_as_tasks():
    with process_pool(max_tasks_per_worker=10) as pool:
        pids = list(pool.map(pid_of, range(35), chunksize=35))
    assert max(map(pids.count, pids)) == 10
    assert len(set(pids)) == 4


def test_the_initializer_prepares_each_replacement():
    def prepare():
        global ready
        ready = os.getpid()

    def is_ready():
        return ready == os.getpid()

    with process_pool(max_tasks_per_worker=1, initializer=prepare) as pool:
        assert all(pool.submit(is_ready).result(LONG) for _ in range(3))


def test_what_a_worker_prints_before_it_is_replaced_is_seen():
    lines = helpers.run_quietly(
        "import plait\n"
        "with plait.Pool(1, kind='process', max_tasks_per_worker=1) as pool:\n"
        "    for n in range(3): pool.submit(print, 'task', n).result()\n"
    )
    assert lines == ["task 0", "task 1", "task 2"]


# ---- what the system does ----


def test_niceness():
    with process_pool(niceness=3) as pool:
        assert pool.submit(os.nice, 0).result(LONG) == os.nice(0) + 3


def test_cpu_affinity():
    allowed = os.sched_getaffinity(0)
    cpu = max(allowed)
    with process_pool(cpu_affinity=[cpu]) as pool:
        assert pool.submit(os.sched_getaffinity, 0).result(LONG) == {cpu}
        assert pool.submit(plait.cpu_count).result(LONG) == 1
    assert os.sched_getaffinity(0) == allowed


def test_environment(monkeypatch):
    monkeypatch.setenv("PLAIT_TEST_ONE", "parent")
    monkeypatch.setenv("PLAIT_TEST_TWO", "parent")
    with process_pool(env={"PLAIT_TEST_ONE": "child"}) as pool:
        values = [
            pool.submit(os.getenv, f"PLAIT_TEST_{name}").result(LONG) for name in ("ONE", "TWO")
        ]
    assert values == ["child", "parent"]
    assert os.environ["PLAIT_TEST_ONE"] == "parent"


def test_a_killed_worker_is_replaced_by_one_with_the_same_limits():
    with process_pool(niceness=2, env={"PLAIT_TEST_ONE": "child"}) as pool:
        died = pool.submit(os.kill, pool.submit(pid_of).result(LONG), signal.SIGKILL)
        assert type(died.exception(LONG)) is plait.WorkerDied
        assert pool.submit(os.getenv, "PLAIT_TEST_ONE").result(LONG) == "child"
        assert pool.submit(os.nice, 0).result(LONG) == os.nice(0) + 2


def test_what_the_system_refuses_breaks_the_pool_with_its_reason():
    lines = helpers.run_quietly(
        "import plait, resource\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (3 * 10**9,) * 2)\n"
        "with plait.Pool(1, kind='process', memory_limit='4GB') as pool:\n"
        "    error = pool.submit(abs, -1).exception(60)\n"
        "print(type(error).__name__, type(error.__cause__).__name__, error.__cause__)\n"
    )
    assert lines == ["BrokenPool ValueError current limit exceeds maximum limit"]


# ---- what is none ----


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"memory_limit": "much"}, ValueError, "like '2GB'"),
        ({"memory_limit": "1MB"}, ValueError, "at least 64 MiB"),
        ({"memory_limit": 1.5e9}, TypeError, "memory_limit is an int, not float"),
        ({"max_tasks_per_worker": 0}, ValueError, "at least 1, not 0"),
        ({"max_tasks_per_worker": True}, TypeError, "not bool"),
        ({"niceness": "5"}, TypeError, "not str"),
        ({"cpu_affinity": []}, ValueError, "some of the CPUs"),
        ({"cpu_affinity": [100_000]}, ValueError, "some of the CPUs"),
        ({"env": {"A": 1}}, TypeError, "str to str"),
        ({"env": {"A=B": "1"}}, ValueError, "'A=B'"),
    ],
)
def test_limits_that_are_none(options, error, text):
    with pytest.raises(error, match=text):
        process_pool(**options)


@pytest.mark.parametrize("kind", ["thread", "interpreter"])
def test_kinds_without_processes_refuse_them(kind):
    with pytest.raises(ValueError, match=r"niceness= is for process workers.*kind='process'"):
        plait.Pool(1, kind=kind, niceness=1)


def test_auto_takes_processes_for_them():
    with plait.Pool(1, max_tasks_per_worker=5) as pool:
        assert pool.kind == "process"
        assert "max_tasks_per_worker= needs" in pool.reason
