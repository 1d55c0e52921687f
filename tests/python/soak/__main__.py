"""A soak: random use of pools, for as long as one likes.

    tools/py 3.14 tests/python/soak --seconds 180 --kind interpreter --seed 7

Rounds in turn: several threads at once (crowd.py), now and then a state machine against its model
(machine.py). After each, the process must hold no more threads, files and interpreters than after
the first; at the end, memory must not have grown. Exit status 0, or 1 with the seed and what each
thread did last; 3 on a hang, with the stacks of all threads.
"""

import argparse
import faulthandler
import logging
import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

import crowd
import helpers
import machine
import plait
import tasks
import watch


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=helpers.kinds_here())
    parser.set_defaults(kind="thread")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="random, and told, without")
    parser.add_argument("--threads", type=int, default=4, help="that use pools at once")
    parser.add_argument("--steps", type=int, default=50, help="of each thread in a round")
    parser.add_argument("--rounds", type=int, default=None, help="at most so many")
    parser.add_argument("--only", nargs="*", default=[], metavar="OPERATION")
    parser.add_argument("--without", nargs="*", default=[], metavar="OPERATION")
    parser.add_argument("--sanitized", action="store_true", help="runs under a sanitizer")
    parser.add_argument(
        "--limit", type=float, default=150, help="seconds a round, or a step of a machine, may take"
    )
    return parser.parse_args()


def warm_up(kind: str) -> None:
    """What stays for good: the default pool with all its workers, the notifier, modules.

    A child that is forked while another thread imports something would wait for it for ever.
    """
    list(plait.map(tasks.work, range(1000)))
    plait.submit(tasks.same, 1).add_done_callback(tasks.same)
    with plait.Pool(1, kind=kind) as pool:
        pool.submit(tasks.trouble, 1).exception()
        pool.submit(lambda box: box, tasks.Box(1)).result()


def main() -> int:
    args = arguments()
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    chosen = crowd.operations(args.only, args.without)
    faulthandler.enable()
    watch.share_one_arena()
    logging.disable(logging.CRITICAL)  # exceptions in callbacks are meant
    print(f"soak: kind {args.kind}, seed {seed}, {args.seconds:.0f} s", flush=True)
    log = watch.Log()
    warm_up(args.kind)
    ledger = watch.Ledger(args.kind, args.sanitized)
    watchdog = watch.Watchdog(args.limit, log)
    began, number = time.monotonic(), 0
    try:
        while time.monotonic() - began < args.seconds and number != args.rounds:
            log.clear()
            watchdog.feed()
            if (seed + number) % 4 == 3 and not args.only:
                machine.run(args.kind, seed + number, 5, args.steps, watchdog.feed)
            else:
                until = began + args.seconds
                crowd.run(args.kind, seed + number, log, until, args.threads, args.steps, chosen)
            number += 1
            ledger.read()
        told = ledger.growth()
    except BaseException:
        print(log.show(), flush=True)
        traceback.print_exc()
        print(f"FAILED in round {number}: repeat with --kind {args.kind} --seed {seed + number}")
        return 1
    watchdog.stop()
    print(f"soak: {number} rounds in {time.monotonic() - began:.0f} s; {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
