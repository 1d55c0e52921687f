"""A new program's first pool: benchmarks/first_result.py NAME prints how many ms one of two workers
needed to its first result, as a contestant of that name."""

import sys

import contestants as who
import harness
import work


def main(name: str) -> None:
    contestant = who.by_name(name)
    pool = None

    def begin() -> None:
        nonlocal pool
        pool = contestant.open(2)
        pool.submit(work.nothing).result()

    print(harness.seconds(begin) * 1e3)
    who.close(pool)


if __name__ == "__main__":
    main(sys.argv[1])
