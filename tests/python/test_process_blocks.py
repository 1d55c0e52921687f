"""Process workers: large messages and buffers, which lie in shared memory instead of the ring."""

import array
import os
import pickle
import resource
import signal

import helpers
import jobs
import plait
import pytest

LONG = helpers.LONG
LARGE = 3_000_000


@pytest.fixture
def pool():
    with plait.Pool(1, kind="process") as made:
        yield made


@pytest.fixture
def np():
    return pytest.importorskip("numpy", reason="NumPy is optional")


class Sheet:
    """Bytes that travel out of band, as an array's do: without a package that may not be there."""

    def __init__(self, data):
        self.data = memoryview(data)

    def __reduce_ex__(self, protocol):
        return Sheet, (pickle.PickleBuffer(self.data),)


def shared(sheet):
    """The name of the object in whose memory a sheet's bytes lie."""
    return type(sheet.data.obj).__name__


def describe(sheet):
    return shared(sheet), sheet.data.readonly, len(sheet.data), bytes(sheet.data[:3])


def write(sheet):
    sheet.data[0] = 99
    return sheet.data[0]


def make(size):
    return Sheet(bytearray(b"abc" * (size // 3)))


def blocks_here():
    """How many descriptors and maps of blocks this process has."""
    files = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            files += "plait-block" in os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    with open("/proc/self/maps") as maps:
        return files, sum("plait-block" in line for line in maps)


def block_of(sheet):
    """Which memory a sheet's bytes lie in: the inode of the file that is mapped there."""
    import ctypes

    at = ctypes.addressof(ctypes.c_char.from_buffer(sheet.data))
    with open("/proc/self/maps") as maps:
        for line in maps:
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            if low <= at < high:
                return int(line.split()[4])
    return None


# ---- both ways without copies ----


def test_a_large_buffer_is_mapped(pool):
    data = bytearray(b"xyz" * (LARGE // 3))
    assert pool.submit(describe, Sheet(data)).result(LONG) == ("SharedBytes", False, LARGE, b"xyz")
    assert pool.submit(describe, Sheet(bytes(data))).result(LONG)[1] is True
    made = pool.submit(make, LARGE).result(LONG)
    assert describe(made) == ("SharedBytes", False, LARGE, b"abc")
    assert bytes(made.data) == b"abc" * (LARGE // 3)
    small = pool.submit(make, 3000).result(LONG)
    assert shared(small) == "bytearray"


def test_what_lies_in_shared_memory_is_not_copied_again(pool):
    made = pool.submit(make, LARGE).result(LONG)
    block = block_of(made)
    assert pool.submit(block_of, made).result(LONG) == block
    assert pool.submit(block_of, Sheet(made.data[LARGE // 2 :])).result(LONG) == block  # a view
    again = pool.submit(jobs.same, made).result(LONG)
    assert block_of(again) == block
    both = pool.submit(lambda a, b: (block_of(a), block_of(b)), made, b=again).result(LONG)
    assert both == (block, block)
    assert [block_of(one) for one in pool.map(jobs.same, [made, again])] == [block, block]


def test_it_serves_other_pools_and_outlives_its_own(pool):
    with plait.Pool(1, kind="process") as first:
        made = first.submit(make, LARGE).result(LONG)
    assert bytes(made.data[-3:]) == b"abc"
    assert pool.submit(block_of, made).result(LONG) == block_of(made)


def test_writers_see_their_own_writes_only(pool):
    made = pool.submit(make, LARGE).result(LONG)
    assert pool.submit(write, made).result(LONG) == 99
    assert bytes(made.data[:3]) == b"abc"
    original = Sheet(bytearray(LARGE))
    assert pool.submit(write, original).result(LONG) == 99
    assert original.data[0] == 0


def test_what_was_written_since_travels(pool):
    made = pool.submit(make, LARGE).result(LONG)
    waiting = pool.submit(describe, made)
    made.data[1] = ord("!")
    assert waiting.result(LONG)[3] in (b"abc",)  # as it was at the submit
    assert pool.submit(describe, made).result(LONG)[3] == b"a!c"
    back = pool.submit(jobs.same, made).result(LONG)
    assert bytes(back.data[:3]) == b"a!c"
    assert block_of(back) != block_of(made)

    def change(sheet):
        sheet.data[2] = ord("?")
        return sheet

    assert bytes(pool.submit(change, back).result(LONG).data[:3]) == b"a!?"
    assert bytes(back.data[:3]) == b"a!c"


@pytest.mark.parametrize("make_value", [bytes, bytearray, lambda n: list(range(n // 8))])
@pytest.mark.parametrize("size", [200_000, 262_144, 300_000, 5_000_000])
def test_large_messages_of_native_values(pool, make_value, size):
    value = make_value(size)
    assert pool.submit(jobs.same, value).result(LONG) == value
    assert list(pool.map(jobs.same, [value, 1, value])) == [value, 1, value]
    assert pool.submit(lambda: (value, [value])).result(LONG) == (value, [value])


def test_many_buffers_in_one_message(pool):
    """More than the blocks that one message refers to: the rest is copied."""
    sheets = [pool.submit(make, 300_000).result(LONG) for _ in range(100)]
    sheets += [Sheet(bytearray([n]) * 300_000) for n in range(20)] + [Sheet(b"x")]
    back = pool.submit(jobs.same, sheets).result(LONG)
    assert [bytes(sheet.data) for sheet in back] == [bytes(sheet.data) for sheet in sheets]


def test_arrays(pool, np):
    rng = np.random.default_rng(1)
    for value in [
        rng.random((700, 900)),
        np.asfortranarray(rng.random((700, 900))),
        rng.integers(0, 9, (900, 900))[::2, ::3],
        np.ma.masked_array(rng.random(200_000), mask=rng.random(200_000) > 0.5),
    ]:
        back = pool.submit(jobs.same, value).result(LONG)
        assert back.dtype == value.dtype
        assert back.flags.writeable
        assert (back == value).all()
        again = pool.submit(jobs.same, back[5:]).result(LONG)
        assert (again == value[5:]).all()
        back[0] = 0
        assert (pool.submit(jobs.same, back).result(LONG) == back).all()
        assert float(pool.submit(np.sum, value).result(LONG)) == float(np.sum(value))


# ---- ends ----


def test_nothing_of_it_is_left():
    before = blocks_here()
    with plait.Pool(2, kind="process") as pool:
        for _ in range(5):
            made = [pool.submit(make, LARGE).result(LONG) for _ in range(3)]
            list(pool.map(jobs.same, made))
            list(pool.map(bytes, [LARGE] * 5))
            pool.submit(jobs.same, bytes(LARGE)).result(LONG)
            dying = pool.submit(
                lambda *_: os.kill(os.getpid(), signal.SIGKILL), *made, b"x" * LARGE
            )
            assert isinstance(dying.exception(LONG), plait.WorkerDied)
        assert blocks_here() != before  # what `made` holds
        del made, dying
        assert helpers.settles(lambda: blocks_here() == before, 30)


def test_one_that_dies_before_it_begins_has_its_blocks_sent_again(pool):
    made = pool.submit(make, LARGE).result(LONG)
    for _ in range(3):
        os.kill(pool.submit(os.getpid).result(LONG), signal.SIGKILL)
        assert pool.submit(block_of, made).result(LONG) == block_of(made)
        os.kill(pool.submit(os.getpid).result(LONG), signal.SIGKILL)
        assert pool.submit(len, bytes(LARGE)).result(LONG) == LARGE


def test_a_child_has_no_descriptors_left(pool):
    before = pool.submit(blocks_here).result(LONG)
    for _ in range(5):
        assert pool.submit(len, bytes(LARGE)).result(LONG) == LARGE
        pool.submit(make, LARGE).result(LONG)
    assert pool.submit(blocks_here).result(LONG) == before


@pytest.fixture
def low_limit():
    """Files, those in memory too, are no longer than 2 MB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_memory_fails_the_submit(pool, low_limit):
    assert pool.submit(len, bytes(LARGE)).result(LONG) == LARGE
    low_limit()
    for value in (bytes(LARGE), Sheet(bytes(LARGE)), list(range(1_000_000))):
        with pytest.raises(MemoryError, match=r"no room in shared memory for a message of \d+ byt"):
            pool.submit(jobs.same, value).result(LONG)
    with pytest.raises(MemoryError, match="no room in shared memory"):
        list(pool.map(jobs.same, [bytes(LARGE)]))
    assert pool.submit(len, bytes(1_000_000)).result(LONG) == 1_000_000


def limit_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_full_memory_fails_the_result(pool):
    pool.submit(limit_files, 2_000_000).result(LONG)
    with pytest.raises(MemoryError, match="no room in shared memory for a message of"):
        pool.submit(bytes, LARGE).result(LONG)
    results = pool.map(bytes, [10, LARGE, 20])
    assert next(results) == bytes(10)
    with pytest.raises(MemoryError, match="no room in shared memory"):
        next(results)
    assert next(results) == bytes(20)


def test_many_results_do_not_take_all_descriptors():
    script = """
import resource, plait, pickle
class Sheet:
    def __init__(self, data): self.data = memoryview(data)
    def __reduce_ex__(self, protocol): return Sheet, (pickle.PickleBuffer(self.data),)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 4096))
with plait.Pool(2, kind="process") as pool:
    made = list(pool.map(lambda n: Sheet(bytearray([n]) * 300_000), range(200)))
    futures = [pool.submit(lambda sheet: sheet.data[7], sheet) for sheet in made]
    assert [future.result() for future in futures] == list(range(200))
    open("/dev/null").close()
"""
    helpers.run_quietly(script)


def test_an_array_module_array_travels(pool):
    value = array.array("d", range(100_000))
    assert pool.submit(jobs.same, value).result(LONG) == value


def write_and_tell(sheet):
    sheet.data[0] += 1
    return sheet.data[0]


def write_to_both(one, other):
    one.data[:] = bytes([7]) * len(one.data)
    return bytes(other.data[:2]), other.data[-1]


def test_items_do_not_see_each_others_writes(pool):
    """Whether they lie in the message or in blocks that came before, and overlap there."""
    base = pool.submit(make, LARGE).result(LONG)
    parts = [Sheet(base.data[3 * n : 3 * n + 2_000_000]) for n in range(20)]
    assert list(pool.map(write_and_tell, parts)) == [ord("a") + 1] * 20
    same = Sheet(bytearray(LARGE))
    first = [pool.submit(write_and_tell, same).result(LONG) for _ in range(3)]
    assert first == [1, 1, 1]
    assert pool.submit(write_to_both, parts[0], parts[1]).result(LONG) == (b"ab", ord("b"))
    ordered = pool.map(write_and_tell, [Sheet(bytearray(300_000)) for _ in range(50)])
    assert list(ordered) == [1] * 50


def test_results_are_their_owners(pool):
    base = pool.submit(make, LARGE).result(LONG)

    def halves(sheet):
        return Sheet(sheet.data[: 2 * LARGE // 3]), Sheet(sheet.data[LARGE // 3 :])

    left, right = pool.submit(halves, base).result(LONG)
    assert block_of(left) == block_of(right) == block_of(base)
    left.data[LARGE // 2] = 1
    assert right.data[LARGE // 2 - LARGE // 3] != 1
    assert base.data[LARGE // 2] != 1


def use_up_descriptors():
    """All but two: a letter with blocks then has no place."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return os.getpid()


def test_a_child_without_descriptors_is_replaced(pool):
    made = pool.submit(make, LARGE).result(LONG)
    full = pool.submit(use_up_descriptors).result(LONG)
    assert pool.submit(jobs.same, bytes(1000)).result(LONG) == bytes(1000)
    assert pool.submit(make, LARGE).result(LONG).data == made.data  # by the ring
    assert pool.submit(os.getpid).result(LONG) == full
    assert pool.submit(block_of, made).result(LONG) == block_of(made)
    assert pool.submit(os.getpid).result(LONG) != full


def test_a_fork_meanwhile_does_not_hinder_it(pool):
    """The kernel refuses to seal what another process has mapped to be written."""

    class Forks:
        def __reduce__(self):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
            return (int, (1,))

    children = []
    try:
        value = [Sheet(bytearray(LARGE)), Forks(), Sheet(bytearray(LARGE))]
        back = pool.submit(jobs.same, value).result(LONG)
        assert [len(back[0].data), back[1], len(back[2].data)] == [LARGE, 1, LARGE]
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
