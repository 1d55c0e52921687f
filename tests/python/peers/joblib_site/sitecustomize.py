"""Every interpreter that joblib's tests begin starts here: workers, and scripts of their own."""

import multiprocessing

# For the managers that its tests start, as from 3.14 on. A fork of a process with threads hangs at
# times in CPython: without a GIL, a lock handed to another thread stays locked in the child. Before
# joblib is imported, which asks once.
multiprocessing.set_start_method("forkserver", force=True)

import joblib_stand_in  # noqa: E402, F401
