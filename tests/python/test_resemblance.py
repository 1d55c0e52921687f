"""What a worker takes over from the interpreter that made its pool."""

import os
import sys
import warnings

import helpers
import jobs
import plait
import pytest


def sights():
    return {
        "path": list(sys.path),
        "argv": list(sys.argv),
        "folder": os.getcwd(),
        "variable": os.environ.get("PLAIT_TEST_VARIABLE"),
        "recursion": sys.getrecursionlimit(),
        "digits": sys.get_int_max_str_digits(),
        "switch": sys.getswitchinterval(),
        "bytecode": sys.dont_write_bytecode,
        "flags": tuple(sys.flags),
        "encoding": (sys.stdout.encoding, sys.stdout.errors),
    }


SIGHTS = """
import os, sys
sys.path.insert(0, sys.argv[2]); sys.path.append("/nowhere")
import plait
from test_resemblance import sights
sys.argv.append("changed")
os.chdir("/")
os.environ["PLAIT_TEST_VARIABLE"] = "set"
sys.setrecursionlimit(777); sys.set_int_max_str_digits(5000); sys.setswitchinterval(0.25)
with plait.Pool(1, kind=sys.argv[1]) as pool:
    assert pool.submit(sights).result() == sights(), (pool.submit(sights).result(), sights())
"""


@pytest.mark.parametrize(
    "options", [(), ("-X", "utf8"), ("-O",), ("-W", "ignore"), ("-B", "-s"), ("-X", "dev")]
)
def test_settings_of_the_process_and_the_interpreter(kind, options):
    folder = os.path.dirname(os.path.abspath(__file__))
    ended = helpers.Child([*options, "-c", SIGHTS, kind, folder], None, None).finish()
    assert ended.code == 0, ended.show()


def test_a_child_starts_where_its_pool_was_made(monkeypatch, tmp_path):
    before = os.getcwd()
    with plait.Pool(1, kind="process") as pool:
        monkeypatch.chdir(tmp_path)
        assert pool.submit(os.getcwd).result(60) == before


# ---- warnings ----


def warn(category=UserWarning, text="careful"):
    warnings.warn(text, category, stacklevel=1)
    return "gone on"


class Own(UserWarning):
    pass


def outcome(future):
    error = future.exception(60)
    return future.result() if error is None else error


def test_filters_as_when_the_pool_was_made(kind):
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", "take.*", UserWarning)
        warnings.simplefilter("error", Own)
        warnings.simplefilter("error", jobs.Caution)
        with plait.Pool(1, kind=kind) as pool:
            assert outcome(pool.submit(warn)) == "gone on"
            assert isinstance(outcome(pool.submit(warn, UserWarning, "take care")), UserWarning)
            assert type(outcome(pool.submit(warn, Own))) is Own
            assert type(outcome(pool.submit(warn, jobs.Caution))) is jobs.Caution


RARE = """
import sys, warnings
import plait, rare
warnings.filterwarnings("error", r"rare\\d", rare.Rare)
loaded = "[name for name in ('rare', 're', 'pickle') if name in __import__('sys').modules]"
def warn(number):
    import rare, warnings
    warnings.warn(f"rare{number}", rare.Rarer if number else Warning)
def inside(number):
    with plait.Pool(1, kind=sys.argv[1]) as pool:
        return repr(pool.submit(warn, number).exception())
with plait.Pool(1, kind=sys.argv[1]) as pool:
    print(pool.submit(eval, loaded).result())
    print(repr(pool.submit(warn, 1).exception()), pool.submit(warn, 0).exception())
    print(pool.submit(inside, 2).result())
"""

RARE_MODULE = """
class Rare(Warning): pass
class Rarer(Rare): pass
"""


@pytest.mark.parametrize("own", sorted({*helpers.kinds_here()} - {"thread"}))
def test_a_category_of_a_filter_is_imported_by_who_warns_of_it(own, tmp_path):
    (tmp_path / "rare.py").write_text(RARE_MODULE)
    ended = helpers.run(RARE, own, how="file", folder=tmp_path)
    assert ended.out.splitlines() == ["[]", "Rarer('rare1') None", "Rarer('rare2')"]


WARNING = """
import sys, warnings, plait
def task():
    warnings.warn("careful")  # line 4
with plait.Pool(1, kind=sys.argv[1]) as pool:
    pool.submit(task).result()
    pool.submit(task).result()
"""


def test_a_warning_is_shown_where_it_was_raised(kind, tmp_path):
    ended = helpers.run(WARNING, kind, how="file", folder=tmp_path)
    assert ended.err == (
        f'{tmp_path}/script.py:4: UserWarning: careful\n  warnings.warn("careful")  # line 4\n'
    )


def test_warnings_as_errors(kind):
    ended = helpers.Child(["-W", "error", "-c", WARNING, kind], None, None).finish()
    assert ended.code == 1, ended.show()
    assert ended.err.strip().endswith("UserWarning: careful")


IMPORTED = """
import sys
before = {*sys.modules, *sys.builtin_module_names}
import plait
with plait.Pool(1, kind=sys.argv[1]) as pool:
    there = pool.submit(eval, "list(__import__('sys').modules)").result()
print(*sorted(name for name in there if name not in before and not name.startswith("plait")))
"""


@pytest.mark.parametrize("own", sorted({*helpers.kinds_here()} - {"thread"}))
def test_a_worker_imports_nothing_but_plait(own):
    """Most of what its start takes would be such imports."""
    assert helpers.run_quietly(IMPORTED, own) == [""]
