"""scikit-learn's GridSearchCV on interpreter workers against joblib's own processes.

Part of `tools/test packages`. What is found must be equal, and plait starts no processes; how long
each took, from nothing to the result, is printed, and how long once its workers were there. Most of
the difference is importing scikit-learn, which takes an interpreter about as long as a process.
"""

import sys
import time

import joblib
import numpy as np
import plait.engines.joblib
import psutil
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV

GRID = {"max_depth": [2, 4, 8, None], "min_samples_leaf": [1, 2, 4]}
WORKERS = 2


def search(backend: str, **options: str) -> tuple[dict[str, object], float]:
    """All that a search finds but its times, and the seconds that it took."""
    rows, classes = make_classification(2000, 30, n_informative=10, random_state=1)
    began = time.perf_counter()
    with joblib.parallel_config(backend, n_jobs=WORKERS, **options):
        model = RandomForestClassifier(20, random_state=1, n_jobs=1)
        found = GridSearchCV(model, GRID, cv=4).fit(rows, classes)
    seconds = time.perf_counter() - began
    results = {name: value for name, value in found.cv_results_.items() if "_time" not in name}
    results["best"] = found.best_params_
    results["importances"] = found.best_estimator_.feature_importances_
    return results, seconds


def main() -> int:
    plait.isolation("sklearn")  # the trial, which is made once, takes its time here
    plait.isolation("scipy")
    ours, seconds = search("plait", kind="interpreter")
    assert not psutil.Process().children(), "plait's workers are interpreters of this process"
    again, warm_seconds = search("plait", kind="interpreter")
    theirs, loky_seconds = search("loky")
    _, warm_loky_seconds = search("loky")
    print(
        f"GridSearchCV on {WORKERS} workers: {seconds:.1f} s, again {warm_seconds:.1f} s; "
        f"loky {loky_seconds:.1f} s, again {warm_loky_seconds:.1f} s"
    )
    for results in (ours, again):
        for name, value in theirs.items():
            np.testing.assert_array_equal(np.asarray(results[name]), np.asarray(value), name)
    plait.engines.joblib.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
