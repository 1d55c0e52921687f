"""The soak, with gcc's AddressSanitizer loaded first: what a plait that is built with it needs.

Leaks are not asked for: CPython keeps what is static for good, and a soak counts for itself.
"""

import os
import subprocess
import sys
from pathlib import Path

library = subprocess.run(
    ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
).stdout.strip()
options = "detect_leaks=0:halt_on_error=1:handle_segv=0"
environment = {"LD_PRELOAD": library, "ASAN_OPTIONS": options, "PYTHONMALLOC": "malloc"}
os.environ.update(environment)
soak = os.fspath(Path(__file__).parent)
os.execv(sys.executable, [sys.executable, soak, "--sanitized", *sys.argv[1:]])
