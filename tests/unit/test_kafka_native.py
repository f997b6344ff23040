"""The native runner of brokers, as far as it goes without one."""

import uuid

import pytest

from deploy.kafka import cluster


def test_a_cluster_id_is_no_option_for_kafkas_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    made = iter([uuid.UUID(bytes=bytes([first]) + bytes(15)) for first in (0xF8, 0xFB, 0x04)])
    monkeypatch.setattr(cluster.uuid, "uuid4", lambda: next(made))
    assert cluster._cluster_id() == "B" + 21 * "A"
