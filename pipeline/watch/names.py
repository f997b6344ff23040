"""Every metric by name. docs/operations.md has the same table for people, with what to be woken for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Kind(NamedTuple):
    """`kind` as Prometheus names it."""

    kind: str
    labels: tuple[str, ...]
    help: str


METRICS: Final[Mapping[str, Kind]] = {
    "hauptbuch_shard_state": Kind("gauge", ("shard", "state"), "1 for the state in which a shard of this worker is."),
    "hauptbuch_shard_height": Kind("gauge", ("shard",), "Height of the last block in the state store."),
    "hauptbuch_shard_block_timestamp_seconds": Kind("gauge", ("shard",), "Time of that block."),
    "hauptbuch_shard_lag_records": Kind(
        "gauge", ("shard", "topic"), "Offsets of control and transactions that no block has consumed."
    ),
    "hauptbuch_shard_execution_seconds": Kind("histogram", ("shard",), "Executing a block, signatures included."),
    "hauptbuch_shard_commit_seconds": Kind("histogram", ("shard",), "From handing a block to the log to its commit."),
    "hauptbuch_shard_store_seconds": Kind("histogram", ("shard",), "Writing a committed block to the state store."),
    "hauptbuch_shard_blocks_total": Kind("counter", ("shard",), "Blocks committed since the shard came here."),
    "hauptbuch_shard_records_total": Kind("counter", ("shard", "fate"), "Input records of these blocks by fate."),
    "hauptbuch_shard_gas_total": Kind("counter", ("shard",), "Gas of these blocks."),
    "hauptbuch_standby_height": Kind("gauge", ("shard",), "Height of the last block in a warm copy."),
    "hauptbuch_standby_warm": Kind("gauge", ("shard",), "1 where a copy that is kept here has all blocks."),
    "hauptbuch_group_shards": Kind("gauge", (), "Partitions that the group assigned to this worker, idle ones too."),
    "hauptbuch_rebalances_total": Kind("counter", (), "Assignments and revocations by the group of workers."),
    "hauptbuch_fencings_total": Kind(
        "counter", ("cause",), "How often uncommitted work was dropped and a writer opened anew."
    ),
    "hauptbuch_halts_total": Kind("counter", (), "How often something halted on a disagreement."),
    "hauptbuch_signatures_verified_total": Kind("counter", (), "Signatures that this process has checked."),
    "hauptbuch_signer_state": Kind("gauge", ("state",), "1 for the state of this synchronizer or attestor."),
    "hauptbuch_signed_round": Kind("gauge", (), "The last round under its quorum."),
    "hauptbuch_signed_round_timestamp_seconds": Kind("gauge", (), "Time of that round."),
    "hauptbuch_signed_height": Kind("gauge", ("shard",), "Height of the last signed block."),
    "hauptbuch_checked_height": Kind("gauge", ("shard",), "Height of the last checked block."),
    "hauptbuch_round_seconds": Kind(
        "histogram", (), "A round's time here: first unsigned block to state roots, or choosing to signature."
    ),
    "hauptbuch_channel_in_flight_bundles": Kind(
        "gauge", ("source", "destination"), "Bundles that checked blocks sent and none has executed."
    ),
    "hauptbuch_channel_in_flight_age_seconds": Kind(
        "gauge", ("source", "destination"), "Age of the oldest of them by its block's time."
    ),
    "hauptbuch_channel_in_flight_value": Kind(
        "gauge", ("source", "destination", "asset"), "Value under way in minor units."
    ),
    "hauptbuch_log_hidden_records": Kind(
        "gauge", ("topic", "partition"), "High watermark less last stable offset: what open transactions hide."
    ),
    "hauptbuch_log_answers": Kind("gauge", (), "1 if the cluster answered this scrape in time."),
    "hauptbuch_step_age_seconds": Kind("gauge", (), "Time since the driver's last step."),
}

Sample = tuple[Sequence[object], float]
"""Values of the labels, in the order of the table; the metric's value."""


def family(name: str, samples: Iterable[Sample]) -> Metric:
    """A gauge or counter of the table, with its samples."""
    kind, labels, text = METRICS[name]
    made = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    metric = made(name, text, labels=labels)
    for values, value in samples:
        metric.add_metric([str(item) for item in values], value)
    return metric


def histogram(name: str, registry: CollectorRegistry) -> Histogram:
    """A histogram of the table, registered."""
    kind, labels, text = METRICS[name]
    assert kind == "histogram", f"{name} is a {kind}"
    return Histogram(name, text, labels, registry=registry, buckets=_BUCKETS)
