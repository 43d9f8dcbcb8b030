"""The coordinate check of every architecture: mup along the width, completep along the depth.

The first architecture is also checked without them, to show what they change.

    python -m benchmarks.record coordinates -- python -m benchmarks.coordinates

For each it counts the modules that pass, fail, or cannot be told, and names the steepest slope.
"""

import argparse
import json
import sys
from typing import Any

import arch_zoo
from train.measures import coordinates
from train.measures.coordinates import LOGITS, Outputs
from train.measures.settings import Coordinates

CHECKS = (
    {"along": "width", "parametrization": "mup"},
    {"along": "depth", "parametrization": "completep"},
)
CONTRASTS = (
    {"along": "width", "parametrization": "standard"},
    {"along": "depth", "parametrization": "mup"},
)


def row(settings: Coordinates, found: list[Outputs]) -> dict[str, Any]:
    """The result of one check."""
    verdicts = [one.verdict for one in found]
    last = {one.name: one.slope(one.change[-1])[0] for one in found if one.name != LOGITS}
    steepest = max(last, key=lambda name: abs(last[name]))
    return {
        "architecture": settings.architecture,
        "family": settings.family,
        "along": settings.along,
        "parametrization": settings.parametrization,
        "pass": verdicts.count("passes"),
        "fail": verdicts.count("fails"),
        "cannot_be_told": verdicts.count("cannot be told"),
        "steepest_slope": round(last[steepest], 2),
        "module": steepest,
    }


def main() -> None:
    """Prints the results as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--architectures", nargs="+", default=arch_zoo.names())
    parser.add_argument("--families", nargs="+", default=["encoder_decoder"])
    parser.add_argument("--size", default="nano", help="the base size")
    parser.add_argument("--multiples", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    rows = []
    for name in options.architectures:
        for family in options.families:
            if family not in arch_zoo.get(name).families:
                continue
            contrasts = CONTRASTS if name == options.architectures[0] else ()
            for check in (*CHECKS, *contrasts):
                settings = Coordinates(
                    architecture=name,
                    family=family,
                    size=options.size,
                    multiples=tuple(options.multiples),
                    seeds=options.seeds,
                    **check,  # pyright: ignore[reportArgumentType]
                )
                rows.append(row(settings, coordinates.check(settings)))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"seeds": options.seeds, "checks": rows}))


if __name__ == "__main__":
    main()
