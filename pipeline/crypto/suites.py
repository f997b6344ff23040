"""The immutable set of signature suites that a node knows, and the set that real chains use."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pipeline.crypto.mldsa import MlDsaSuite
from pipeline.crypto.port import PrivateKey, Suite, SuiteId
from pipeline.crypto.slhdsa import SlhDsaSuite
from pipeline.errors import ConfigError

__all__ = ["STANDARD_SUITES", "PrivateKey", "Suite", "SuiteId", "SuiteSet"]


class SuiteSet(Mapping[int, Suite]):
    """An immutable mapping suite id -> suite."""

    __slots__ = ("_suites",)

    def __init__(self, suites: Iterable[Suite]) -> None:
        """Raises `ConfigError` where two suites share an id."""
        self._suites: dict[int, Suite] = {}
        for suite in suites:
            if suite.suite_id in self._suites:
                raise ConfigError(f"two suites have the id 0x{suite.suite_id:02x}; give each its own")
            assert 0 <= suite.suite_id <= 0xFF
            self._suites[suite.suite_id] = suite

    def __getitem__(self, suite_id: int) -> Suite:
        """The suite; raises KeyError."""
        return self._suites[suite_id]

    def __iter__(self) -> Iterator[int]:
        """Ids in the order given."""
        return iter(self._suites)

    def __len__(self) -> int:
        """Number of suites."""
        return len(self._suites)

    def __repr__(self) -> str:
        """Names only."""
        return f"SuiteSet({', '.join(s.name for s in self._suites.values())})"

    def with_suite(self, suite: Suite) -> "SuiteSet":
        """A new set with one more. Raises `ConfigError` where its id is taken."""
        return SuiteSet([*self._suites.values(), suite])

    def require(self, suite_id: int) -> Suite:
        """The suite of an id. Raises `ConfigError` if there is none."""
        suite = self._suites.get(suite_id)
        if suite is None:
            known = ", ".join(f"0x{s.suite_id:02x} {s.name}" for s in self._suites.values())
            raise ConfigError(f"no signature suite 0x{suite_id:02x}; use one of {known}")
        return suite

    def named(self, name: str) -> Suite:
        """The suite of a name, case ignored. Raises `ConfigError` if there is none."""
        for suite in self._suites.values():
            if suite.name.casefold() == name.casefold():
                return suite
        raise ConfigError(f"no signature suite {name!r}; use one of {', '.join(s.name for s in self.values())}")

    def accepts_key(self, suite_id: int, public_key: bytes) -> bool:
        """Whether the suite is known and the key has its size; says nothing about who owns it."""
        suite = self._suites.get(suite_id)
        return suite is not None and len(public_key) == suite.public_key_bytes

    def verify(self, suite_id: int, public_key: bytes, message: bytes, context: bytes, signature: bytes) -> bool:
        """`Suite.verify` of that suite; False for an id that is not in the set."""
        suite = self._suites.get(suite_id)
        return suite is not None and suite.verify(public_key, message, context, signature)


STANDARD_SUITES: Final = SuiteSet(
    [
        MlDsaSuite(SuiteId.ML_DSA_44),
        MlDsaSuite(SuiteId.ML_DSA_65),
        MlDsaSuite(SuiteId.ML_DSA_87),
        SlhDsaSuite(),
    ]
)
