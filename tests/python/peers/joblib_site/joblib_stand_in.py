"""plait's backend under the names of joblib's own; importing this module replaces them."""

import os

from plait.engines.joblib import PlaitBackend

# isort: split
# After plait's engine, which knows how to import it in a worker.
import joblib._parallel_backends
import joblib.parallel

KIND = "PLAIT_JOBLIB_KIND"  # the environment variable with the kind that stands in for processes


class StandIn(PlaitBackend):
    """Takes its kind from the name that it stands in for."""

    kind_of_name: str

    def __init__(self, kind: str | None = None, **options) -> None:
        super().__init__(kind or self.kind_of_name, **options)

    @property
    def _pool(self):
        """What joblib's tests look at as the backend's workers."""
        return self._call


class ThreadingBackend(StandIn):
    kind_of_name = "thread"


class LokyBackend(StandIn):
    kind_of_name = os.environ[KIND]


class MultiprocessingBackend(StandIn):
    kind_of_name = os.environ[KIND]


for _name, _backend in (
    ("threading", ThreadingBackend),
    ("loky", LokyBackend),
    ("multiprocessing", MultiprocessingBackend),
):
    joblib.parallel.BACKENDS[_name] = _backend
    setattr(joblib._parallel_backends, _backend.__name__, _backend)
# What a context of multiprocessing that is given as a backend becomes. The others stay as they are
# here: joblib asks whether a backend is loky's own.
joblib.parallel.MultiprocessingBackend = MultiprocessingBackend
