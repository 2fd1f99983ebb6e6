#!/usr/bin/env python3
"""Counts the instructions of the hot path with callgrind and compares them with what they were.

    .ci/instructions.py PROGRAM COUNTS [--write]

PROGRAM --instructions WORK CALLS does one kind of work so many times. Each is run twice, the second time with twice as
many calls: the difference is what the calls take, without the start and the end of the program. COUNTS has a line
"WORK INSTRUCTIONS" for each. A count that is more than a tenth larger fails; --write keeps the new counts.
"""

import re
import subprocess
import sys

# The start and the end of a program vary by some thousand instructions: random seeds, addresses, a connection
# that is refused sooner or later. The calls take so many more that this is not seen.
INSTRUCTIONS = 60_000_000
CALLS = range(1_000, 1_000_000)
# Other compilers, and other processors by the C library's choices, make a difference.
TOLERANCE = 0.1


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    program, file = arguments
    with open(file, encoding="utf-8") as lines:
        known = {work: int(count) for work, count in map(str.split, lines)}
    counted = {work: count(program, work, before) for work, before in known.items()}
    worse = 0
    for work, before in known.items():
        change = counted[work] / before - 1 if before else float("inf")
        too_many = change > TOLERANCE
        worse += too_many
        word = "  TOO MANY" if too_many else "  fewer: keep it with --write" if change < -TOLERANCE else ""
        print(f"{work:24} {counted[work]:8,} instructions, {before:,} before{word}")
    if "--write" in sys.argv:
        with open(file, "w", encoding="utf-8") as lines:
            lines.writelines(f"{work} {count}\n" for work, count in counted.items())
    elif worse:
        sys.exit(f"{worse} of them take more instructions than before; if that is meant: ./dev instructions --write")


def count(program, work, before):
    calls = min(max(INSTRUCTIONS // max(before, 1), CALLS.start), CALLS.stop)
    return round((collected(program, work, 2 * calls) - collected(program, work, calls)) / calls)


def collected(program, work, calls):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, "--instructions", work, str(calls)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", ended.stderr)
    if ended.returncode or not found:
        sys.exit(f"{work} cannot be counted: {ended.stderr}")
    return int(found[1])


if __name__ == "__main__":
    main()
