"""Every interpreter that joblib's tests begin starts here: workers, and scripts of their own."""

import joblib_stand_in  # noqa: F401
