import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "contract"))  # its fixture knows where a broker is to be had


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real broker."""
    from kafka_fixture import broker  # noqa: PLC0415 - the client is slow to import, and most tests need none

    with broker(tmp_path_factory.mktemp("kafka") / "cluster") as found:
        yield found.bootstrap
