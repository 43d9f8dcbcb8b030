"""Draws the pictures of an architecture's page: its parts, and its costs over sizes.

    python docs/pictures.py switch --out pictures

It writes `switch_encoder_decoder.svg`, `switch_decoder_only.svg` and `switch_costs.svg`. The pages
of the site contain the same pictures.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zoo_pages import diagram, facts, plot  # noqa: E402

import arch_zoo  # noqa: E402


def main() -> None:
    """Reads the command line and writes the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="+", choices=arch_zoo.names(), metavar="ARCHITECTURE")
    parser.add_argument("--out", type=Path, default=Path(), help="a folder (default: this one)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    vanilla = facts.counted(facts.VANILLA)
    for name in arguments.names:
        own = facts.counted(name)
        drawn = {
            family: diagram.svg(name, family, model, vanilla["structure"][family])
            for family, model in own["structure"].items()
        }
        drawn["costs"] = plot.svg(name, own["costs"], vanilla["costs"])
        for what, svg in drawn.items():
            path = arguments.out / f"{name}_{what}.svg"
            path.write_text(svg, encoding="utf-8")
            print(path)


if __name__ == "__main__":
    main()
