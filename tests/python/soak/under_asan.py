"""The soak, or the script that is named first, with gcc's AddressSanitizer loaded: what a plait
that is built with it needs.

Leaks are not asked for: CPython keeps what is static for good, and a soak counts for itself.
"""

import os
import subprocess
import sys
from pathlib import Path


def library(name: str) -> str:
    command = ["gcc", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# libstdc++, too: its functions are looked up at the start, those that throw among them.
loaded = f"{library('libasan.so')} {library('libstdc++.so.6')}"
settings = "detect_leaks=0:halt_on_error=1:handle_segv=0"
environment = {"LD_PRELOAD": loaded, "ASAN_OPTIONS": settings, "PYTHONMALLOC": "malloc"}
os.environ.update(environment)
named = sys.argv[1:2] if sys.argv[1:2] and sys.argv[1].endswith(".py") else []
script = named or [os.fspath(Path(__file__).parent)]
options = sys.argv[1 + len(named) :]
os.execv(sys.executable, [sys.executable, *script, "--sanitized", *options])
