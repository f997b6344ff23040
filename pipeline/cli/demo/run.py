"""The demo from beginning to end."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

from pipeline.audit.log_copy import copy_log
from pipeline.audit.report import AuditReport
from pipeline.cli.auditing import audit_cluster, audit_directory, say_progress
from pipeline.cli.csv_source import Payment
from pipeline.cli.demo.evidence import STRANGER, balances_differ, check_proof, final_balances
from pipeline.cli.demo.lies import LEAST_LIES, tell_lies
from pipeline.cli.demo.payments import sample_payments
from pipeline.cli.demo.play import Played, play
from pipeline.cli.demo.processes import WORKERS
from pipeline.cli.demo.story import Story, played_json
from pipeline.cli.output import line, note
from pipeline.cli.surroundings import reading, settings
from pipeline.client.trust import Trust, load_trust
from pipeline.ledger.chain import Chain
from pipeline.node.layout import NodeLayout


class Options(NamedTuple):
    """`root`: where to make the ledger; `kept`: it stays there. `kafka`: brokers that hold its log, "" for none."""

    root: Path
    rows: int
    shards: int
    json: bool
    kept: bool
    kafka: str = ""


def run_demo(options: Options) -> bool:
    """Run it; whether everything held. Raises what the library raises."""
    started = perf_counter()
    story = Story(silent=options.json)
    payments = sample_payments(options.rows)
    story.section(
        "Hauptbuch",
        f"{len(payments):,} real Ethereum payments of 2017-03-06 over {options.shards} shards, in their order, "
        "each signed with ML-DSA-65",
    )
    document: dict[str, Any] = {"rows": len(payments), "shards": options.shards}
    if options.kafka:
        story.section(
            "On Kafka", f"cluster {options.kafka}; {WORKERS} workers and a synchronizer that executes every block again"
        )
    played = play(options.root, payments, options.shards, note, options.kafka)
    story.played(played)
    document |= played_json(played)
    held = not played.refused_roots
    held &= _prove(options, payments, played, story, document)
    held &= _audit(options, story, document)
    seconds = perf_counter() - started
    document |= {"held": held, "seconds": round(seconds, 2)}
    if options.json:
        line(json.dumps(document, indent=2))
    story.section(
        "Result", f"everything held, in {seconds:.0f} s" if held else "SOMETHING DID NOT HOLD, see above", good=held
    )
    _tell_what_stays(options, story)
    return held


def _tell_what_stays(options: Options, story: Story) -> None:
    if options.kafka:
        from pipeline.node.places import topic_prefix  # noqa: PLC0415 - the Kafka client is slow to import

        story.section("Topics", f"{topic_prefix(NodeLayout(options.root).chain())}.* stay on the cluster")
    if options.kept:
        story.section("Kept", f"the ledger and the proof files are in {options.root}")


def _prove(options: Options, payments: list[Payment], played: Played, story: Story, document: dict[str, Any]) -> bool:
    expected = final_balances(payments)
    busiest = max(expected, key=lambda name: (expected[name], name))
    with reading(options.root) as reader:
        differ = balances_differ(reader, played.asset, {played.addresses[name]: expected[name] for name in expected})
        folder = options.root
        present = check_proof(reader, folder, played.addresses[busiest], played.asset, expected[busiest])
        absent = check_proof(reader, folder, STRANGER, played.asset, None)
    story.section(
        "Balances",
        f"all {len(expected):,} equal plain arithmetic over the file"
        if not differ
        else f"{differ:,} DIFFER from arithmetic",
        good=not differ,
    )
    story.proof(present)
    story.proof(absent)
    document |= {"balances_that_differ": differ, "proof": asdict(present), "absence": asdict(absent)}
    return not differ and all(proof.holds and proof.forgery_refused for proof in (present, absent))


def _audit(options: Options, story: Story, document: dict[str, Any]) -> bool:
    layout = NodeLayout(options.root)
    chain, trust = layout.chain(), load_trust(layout.trust)
    note("auditing")
    with TemporaryDirectory(prefix="hauptbuch-demo-copy-") as folder:
        log, held = layout.log, True
        if options.kafka:
            log = Path(folder) / "log"
            report, held = _audit_cluster(layout, chain, trust, story, log)
        else:
            report = audit_directory(log, chain, trust, say_progress())
            story.audited(report)
        lies = list(tell_lies(log, chain, trust, note))
    story.lies(lies)
    document |= {"audit": report.to_json(), "lies": [lie.to_json() for lie in lies]}
    held &= report.ok and report.conserved is not None
    return held and len(lies) >= LEAST_LIES and all(lie.caught for lie in lies)


def _audit_cluster(
    layout: NodeLayout, chain: Chain, trust: Trust, story: Story, copy: Path
) -> tuple[AuditReport, bool]:
    """Audit the topics, then a copy of them, which must say the same: what is on a cluster can't be damaged through
    its protocol, so the lies are told to the copy."""
    from pipeline.node.places import chain_log  # noqa: PLC0415 - the Kafka client is slow to import

    config = settings(layout)
    with chain_log(chain, config) as log:
        report = audit_cluster(log, chain, trust, say_progress())
    story.audited(report)
    note("copying the topics")
    with chain_log(chain, config) as log:
        records = copy_log(log, copy)
    same = replace(audit_directory(copy, chain, trust), seconds=0.0) == replace(report, seconds=0.0)
    story.section(
        "Copy",
        f"{records:,} records of all topics, at the same offsets, to be damaged: undamaged, its audit says "
        f"{'the same' if same else 'SOMETHING ELSE'}",
        good=same,
    )
    return report, same
