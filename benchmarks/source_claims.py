"""How often a claim of the sources is decided although nothing can be, on simulated studies.

    python -m benchmarks.source_claims            # about twenty minutes of one core
    python -m benchmarks.source_claims K6 G1b     # only these claims

Each row is one claim: the studies, in percent how often it was called supported and contradicted,
and the standard error of a share of 5 percent. The truth lies at the edge of what the claim says,
so every decision is wrong, and both together should be 5 percent at most.
"""

import math
import sys

from eval.stats.decision import CONTRADICTED, SUPPORTED
from tests.eval.analyses.test_sources import NULLS, verdicts


def main() -> None:
    """Prints the table, a row as soon as it is known."""
    chosen = set(sys.argv[1:])
    print("claim  studies  supported  contradicted  error")
    for names, study, count in NULLS:
        if chosen and not chosen & set(names.split()):
            continue
        found = [verdicts(names, study(seed)) for seed in range(count)]
        error = 100 * math.sqrt(0.05 * 0.95 / count)
        for name, called in zip(names.split(), zip(*found, strict=True), strict=True):
            shares = [100 * called.count(v) / count for v in (SUPPORTED, CONTRADICTED)]
            print(
                f"{name:6} {count:7}  {shares[0]:9.1f}  {shares[1]:12.1f}  {error:5.1f}", flush=True
            )


if __name__ == "__main__":
    main()
