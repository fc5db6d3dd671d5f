"""`make revocation`: trials, their figures, and an exit code that says whether the promise held.

The promise (docs/operations.md): after a key is disabled no plaintext is handed to a connection, no backup goes on
or is acknowledged, later than the lease bound, and one second for the machine; enabling the key brings everything
back. In every fourth trial KMS falls silent as well, so that nothing but the bound ends the streams.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from revocation.trial import Outcome, run_trial
from revocation.world import world

_GRACE = 1.0  # seconds that the machine may take beyond the bound
_SILENT = 4  # one trial in so many
_FIGURES = {
    "last_plaintext": "from disabling to the last plaintext handed to a connection",
    "last_stored": "from disabling to the last backup acknowledged",
    "last_taken": "from disabling to the last chunk taken of a running backup",
    "resumed": "from enabling to Put, Get and Export working",
}


def main() -> int:
    """Run them all; 1 if the promise did not hold in one."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="keystow-revocation-") as folder:
        outcomes = asyncio.run(_trials(arguments, Path(folder)))
    limit = arguments.bound + _GRACE
    late = [each for each in outcomes if max(each.last_plaintext, each.last_stored, each.last_taken) > limit]
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    result = {
        "bench": "P9-revocation",
        "trials": len(outcomes),
        "bound": arguments.bound,
        "limit": limit,
        "seed": arguments.seed,
        "refused": _figures([outcome for outcome in outcomes if not outcome.silent]),
        "silent": _figures([outcome for outcome in outcomes if outcome.silent]),
        "late": len(late),
        "problems": problems,
        "met": not late and not problems,
    }
    if not arguments.json:
        _tell(result)
    print(json.dumps(result))
    return 0 if result["met"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make revocation", description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=8, help="tenants whose trials run at the same time")
    parser.add_argument("--bound", type=float, default=2.0, help="lease_bound, in seconds")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"), help="repeats the moments")
    parser.add_argument("--json", action="store_true", help="print the last line only")
    return parser.parse_args()


async def _trials(arguments: argparse.Namespace, folder: Path) -> Sequence[Outcome]:
    chance = random.Random(arguments.seed)  # noqa: S311 - it chooses moments, not keys
    slots = asyncio.Semaphore(arguments.at_once)
    done = 0
    async with world(folder, arguments.bound) as running:

        async def one(number: int, seed: int) -> Outcome:
            nonlocal done
            async with slots:
                fate, silent = random.Random(seed), number % _SILENT == _SILENT - 1  # noqa: S311
                outcome = await run_trial(running, f"trial-{number}", arguments.bound, fate, silent=silent)
            done += 1
            if not arguments.json:
                ending = "\n" if done == arguments.trials or not sys.stderr.isatty() else "\r"
                print(f"{done}/{arguments.trials} trials", end=ending, file=sys.stderr, flush=True)
            return outcome

        seeds = [chance.getrandbits(32) for _ in range(arguments.trials)]
        return await asyncio.gather(*(one(number, seed) for number, seed in enumerate(seeds)))


def _figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    figures: dict[str, Any] = {"trials": len(outcomes)}
    for name in _FIGURES if outcomes else ():
        ordered = sorted(getattr(outcome, name) for outcome in outcomes)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        figures[name] = {
            "p50": round(statistics.median(ordered), 3),
            "p99": round(p99, 3),
            "max": round(ordered[-1], 3),
        }
    return figures


def _tell(result: Mapping[str, Any]) -> None:
    print(f"lease bound {result['bound']:g} s, limit {result['limit']:g} s, seed {result['seed']}")
    for kind, meaning in (("refused", "KMS refuses the disabled key"), ("silent", "KMS answers nothing for it")):
        print(f"{result[kind]['trials']} trials in which {meaning}:")
        for name, what in _FIGURES.items():
            if figures := result[kind].get(name):
                print(f"  {what}: p50 {figures['p50']:.3f} s, p99 {figures['p99']:.3f} s, max {figures['max']:.3f} s")
    for problem in result["problems"]:
        print(f"  DID NOT HOLD: {problem}")
    print("Every trial held." if result["met"] else "THE PROMISE DID NOT HOLD.")


if __name__ == "__main__":
    sys.exit(main())
