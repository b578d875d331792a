"""``python -m tests.fuzz WORKSPACE --inputs N``: feeds every parser N inputs and prints the table; exit code 1 after a
failure. ``--only PARSER --first NUMBER`` repeats one input; ``--search N`` adds N for each that hypothesis chooses."""

import argparse
import faulthandler
import tempfile
import time
from pathlib import Path

from tests.fuzz.harness import Tally, as_json, feed, limit_memory, report, say, search, sow
from tests.fuzz.parsers import parsers

PATIENCE = 600  # seconds without an end of a hundred inputs: a decoder that no signal stops


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("workspace", type=Path)
    options.add_argument("--inputs", type=int, default=100)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--only")
    options.add_argument("--search", type=int, default=0)
    options.add_argument("--json", action="store_true")
    told = options.parse_args()
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="metavqa-fuzz-") as folder:
        every = parsers(told.workspace, Path(folder))
        limit_memory()
        for parser in every:
            if told.only in (None, parser.name):
                tally, began = Tally(parser.name), time.process_time()
                sow(parser, tally)
                for first in range(told.first, told.first + told.inputs, 100):
                    faulthandler.dump_traceback_later(PATIENCE, exit=True)
                    feed(parser, range(first, min(first + 100, told.first + told.inputs)), tally)
                faulthandler.cancel_dump_traceback_later()
                if told.search:
                    search(parser, told.search, tally)
                say(f"{parser.name}: {tally.inputs:,} inputs in {time.process_time() - began:.1f} s")
                tallies.append(tally)
    print(as_json(tallies) if told.json else report(tallies))
    return int(any(tally.failures for tally in tallies))


if __name__ == "__main__":
    raise SystemExit(main())
