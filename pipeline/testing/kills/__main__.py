"""`python -m pipeline.testing.kills N [SEED]`: N kills of real processes, each judged."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.testing.kills.campaign import run_kills
from pipeline.testing.kills.judge import Judgement, LedgerBroken


def main(arguments: Sequence[str]) -> int:
    """0 where all held; 1, the first thing that did not and where its ledger is."""
    parser = argparse.ArgumentParser(prog="kills", description="Kill real nodes under load and judge what is left.")
    parser.add_argument("kills", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--folder", type=Path, help="where ledgers are made; else a temporary directory")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="hauptbuch-kills-", dir=options.folder))

    def progress(kills: int, judged: Judgement) -> None:
        print(f"{kills} kills; this ledger has {judged.blocks} blocks, {judged.transactions} transactions", flush=True)

    try:
        report = run_kills(options.kills, options.seed, folder, progress)
    except LedgerBroken as broken:
        print(f"seed {options.seed}: {broken}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    print(
        f"{report.kills} kills held, {report.young} of them before all shards led: {report.transactions} receipts, "
        f"{report.blocks} blocks, {report.bundles} bundles, {report.roots_seen} roots seen before kills all stand; "
        f"{report.finished} times brought to rest; {report.seconds:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
