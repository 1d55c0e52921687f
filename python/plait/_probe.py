"""Tries a package out in a child process: whether interpreter workers can bear it.

What goes wrong there is a crash as a rule, often only when an interpreter or the process ends. So
nothing but a process that does all of it, and ends well, is a proof. The child says on its stdout
how far it has come, one word a line; the package's own output goes to stderr.
"""

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

# Until the child is given up, in seconds: far more than it needs, since machines are slow at times.
PATIENCE: Final = 180

# As plait._child's: nothing can be imported before sys.path is there.
_CODE: Final = """\
import sys
sys.path[:] = sys.argv[4:]
__import__('plait._probe', fromlist=['main']).main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""

_TAIL: Final = 600  # characters of stderr that are worth telling


@dataclass(frozen=True)
class Trial:
    """How a child fared. Each field is of that child alone."""

    passed: bool
    crashed: bool  # by a signal of its own making: it will again
    unfit: int  # modules that CPython would have refused
    files: tuple[str, ...]  # the extension files that got images
    why: str  # nothing, or what went wrong


def run(module: str, file: str | None, workers: int) -> Trial:
    """Imports and exercises a module in so many interpreters at once, in a child. Blocks, for a
    second or so. Raises OSError where there can be no child.

    file: what a top-level module is to be loaded from, wherever its name would lead; None: by name.
    """
    import subprocess
    import tempfile

    from plait import _child

    command = _child.interpreter_command(_CODE, module, file or "", str(workers))
    if not sys.executable:
        raise FileNotFoundError("sys.executable is empty")
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is not meant for it
            env={**os.environ, "PLAIT_ISOLATION": "trial"},
        )
        late = False
        try:
            said, _ = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            late, said = True, b""
        finally:
            if child.poll() is None:
                child.kill()
                child.communicate()
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - _TAIL))
        tail = errors.read().decode(errors="replace").strip()
    if late:
        return Trial(False, False, 0, (), f"it was not done after {PATIENCE} s")
    return _judge(child.returncode, said.decode(errors="surrogateescape").splitlines(), tail)


def _judge(status: int, said: list[str], tail: str) -> Trial:
    words = dict(line.partition(" ")[::2] for line in said if not line.startswith("file "))
    files = tuple(line.removeprefix("file ") for line in said if line.startswith("file "))
    unfit = int(words.get("unfit", 0))
    if status == 0 and "ended" in words:
        return Trial(True, False, unfit, files, "")
    if "raised" in words:
        return Trial(False, False, unfit, files, words["raised"])
    when = "at its exit" if "ended" in words else "when an interpreter ended" if files else "in use"
    if status >= 0:
        return Trial(False, False, unfit, files, f"a process ended with status {status}: {tail}")
    with contextlib.suppress(ValueError):
        tail = signal.Signals(-status).name
    outside = -status in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    return Trial(False, not outside, unfit, files, f"a process that tried it died {when} ({tail})")


# ---- in the child ----


def main(module: str, file: str, workers: int) -> None:
    """In the child: tries the module out, and says how far it came."""
    import faulthandler

    from plait import Pool

    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a worker's thread, which blocks all, made us
    say = _take_stdout()
    faulthandler.dump_traceback_later(PATIENCE, exit=True)  # where the parent died meanwhile
    pools = [Pool(1, kind="interpreter") for _ in range(workers)]
    try:
        for _ in range(2):
            for future in [pool.submit(use, module, file) for pool in pools]:
                unfit, files = future.result()
    except Exception as error:
        text = " ".join(str(error).split())
        say(f"raised {type(error).__name__}: {text}")
        os._exit(1)
    say(f"unfit {unfit}")
    for file in files:
        say(f"file {file}")
    pools.pop(0).shutdown()  # its end is seen by the others, if by any
    for pool in pools:
        pool.submit(use, module, file).result()
        pool.shutdown()
    say("ended")


def use(module: str, file: str) -> tuple[int, list[str]]:
    """In a worker: imports a module, exercises its package; how many modules CPython would have
    refused, and the files of all that have images.
    """
    from plait import _exercises, _isolate, _plait

    if module not in sys.modules and file and "." not in module:
        _load(module, file)
    else:
        importlib.import_module(module)
    exercise = _exercises.EXERCISES.get(module.partition(".")[0])
    if exercise is not None:
        exercise()
    return _plait._count_unfit_images(), _isolate.files_loaded()


def _load(module: str, file: str) -> None:
    """Loads a module from a file that need not be on sys.path."""
    spec = importlib.util.spec_from_file_location(module, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"no module can be loaded from {file}", name=module, path=file)
    sys.modules[module] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[module])


def _take_stdout() -> Callable[[str], None]:
    """A function that writes lines to stdout; what others write there goes to stderr from now."""
    words = os.dup(1)
    os.dup2(2, 1)

    def say(line: str) -> None:
        os.write(words, os.fsencode(line + "\n"))

    return say
