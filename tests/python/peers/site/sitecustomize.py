"""Every Python process of CPython's suites begins here, those that the tests start among them."""

import _thread

# A worker's interpreter begins here, too, and is to stay as it is.
if getattr(_thread, "_is_main_interpreter", lambda: True)():
    from peers import stand_in

    stand_in.install()
