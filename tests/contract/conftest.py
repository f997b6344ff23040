from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("kv_contract", "log_contract")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A real broker, as `kafka_fixture.Kafka`."""
    from kafka_fixture import broker  # noqa: PLC0415 - the client is slow to import, and most tests need none

    with broker(tmp_path_factory.mktemp("kafka") / "cluster") as found:
        yield found
