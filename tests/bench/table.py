"""The whole results table from nothing: ``python -m tests.bench.table [OPTION...]`` prints JSON.

It runs `metavqa eval table --seeds 1` with the options in an empty workspace with an empty cache, and once more when
everything is trained and measured. Limits with the tiny preset on two cores: 30 minutes, then 60 s; 4 GB.
"""

import json
import sys

from tests.bench.quickstart import first_and_again, machine

LIMITS = {"first_s": 1800, "again_s": 60, "peak_gb": 4}


def main() -> None:
    found = first_and_again("eval", "table", "--seeds", "1", *sys.argv[1:])
    print(json.dumps({"machine": machine(), "table": found, "limits": LIMITS}, indent=2))


if __name__ == "__main__":
    main()
