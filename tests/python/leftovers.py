"""What tests of reused interpreters have workers do, and leave behind. Imports what is cheap."""

import atexit
import builtins
import os
import random
import sys
import time
from pathlib import Path

import jobs
import plait


def identity():
    """Of this worker's process and interpreter."""
    if sys.version_info < (3, 13):
        return os.getpid(), 0
    import _interpreters

    return os.getpid(), int(_interpreters.get_current()[0])


def meet(folder, count, number):
    jobs.meet(folder, count, number)
    return identity()


def nothing():
    pass


def fail():
    raise ValueError("an initializer")


def spin(path):
    Path(path).touch()
    while True:
        pass


def start_thread():
    import threading

    thread = threading.Thread(target=time.sleep, args=(0.5,))
    thread.start()


def log_to_stderr():
    import logging

    logging.basicConfig()


def capture_warnings():
    import logging

    logging.captureWarnings(True)


def watch_calls():
    sys.monitoring.use_tool_id(3, "test")


def trace_threads():
    import threading

    threading.setprofile(lambda *_: None)


def close_stdout():
    sys.stdout.close()


def open_pool():
    jobs.pool = plait.Pool(1, kind="thread")
    jobs.pool.submit(abs, 1).result(60)


def keep_pool():
    import json

    json.pool = plait.Pool(1, kind="thread")


def print_in_thread(text):
    import threading

    thread = threading.Thread(target=print, args=(text,), kwargs={"end": ""})
    thread.start()
    thread.join()


def call_at_exit(path):
    import atexit

    atexit.register(Path(path).touch)


def import_logging():
    import logging

    return atexit._ncallbacks(), logging.getLogger("some").name


def use_pool():
    with plait.Pool(2, kind="thread") as pool:
        return list(pool.map(abs, [-1, -2]))


def dirty_main():
    import __main__

    __main__.leftover = 1
    __main__.__name__ = "else"


def names_of_main():
    import __main__

    return sorted(vars(__main__)), __main__.__name__


def patch_builtins():
    builtins.len = lambda _: 42
    builtins.any = builtins.all = builtins.str = None
    builtins.leftover = 1
    del builtins.abs


def use_builtins():
    return len([1]), hasattr(builtins, "leftover"), abs(-2), any([1]), str(1)


def change_thread():
    import decimal
    import threading

    decimal.getcontext().prec = 3
    sys.setprofile(lambda *_: None)
    jobs.local = threading.local()
    jobs.local.word = "left"
    sys.modules["json"] = jobs.local


def describe_thread():
    import decimal
    import threading

    names = [thread.name for thread in threading.enumerate()]
    return decimal.getcontext().prec, sys.getprofile(), len(names), sys.gettrace()


def change_warnings():
    import warnings

    warnings.simplefilter("error")


def what_warns():
    import warnings

    try:
        warnings.warn("something", ImportWarning, stacklevel=1)
    except ImportWarning:
        return "raised", warnings.filters
    return "passed", warnings.filters


def change_interpreter():
    import gc
    import io

    class Finder:
        find_spec = staticmethod(lambda *_: None)

    sys.path.append("/nowhere")
    sys.argv = []
    sys.stdout = io.StringIO()
    sys.excepthook = sys.displayhook = print
    sys.leftover = 1
    sys.meta_path.append(Finder)
    sys.path_hooks.append(lambda _: None)
    sys.setrecursionlimit(500)
    sys.setswitchinterval(0.1)
    sys.modules["json"] = 3
    gc.disable()
    gc.set_threshold(7)
    gc.callbacks.append(lambda *_: None)
    vars(os)["environ"] = {}


def describe_interpreter():
    import gc
    import json

    return (
        (sys.path, sys.argv, type(sys.stdout).__name__, hasattr(sys, "leftover")),
        (sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__),
        (len(sys.meta_path), len(sys.path_hooks), len(gc.callbacks)),
        (sys.getrecursionlimit(), sys.getswitchinterval()),
        (json.dumps([]), gc.isenabled(), gc.get_threshold()),
        type(os.environ).__name__,
    )


def read_module():
    import plait_test_module

    plait_test_module.seen += 1
    return plait_test_module.word, plait_test_module.seen


def seed():
    random.seed(1)
    return random.getrandbits(64)


def leave_garbage(path):
    class Last:
        def __del__(self):
            Path(path).touch()
            print("the last word")

    last = Last()
    last.me = last


def singular_values(size):
    import numpy as np

    np.random.seed(None)
    matrix = np.random.default_rng(1).random((size, size))
    return id(sys.modules["numpy"]), float(np.linalg.svd(matrix)[1].sum())


def draw():
    import numpy as np

    np.random.seed(1)
    return 0


def draw_again():
    return sys.modules["numpy"].random.random()
