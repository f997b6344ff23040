"""A node in memory for tests of the façades: real shards, log and synchronizer, and a clock that driving moves."""

from collections.abc import Callable, Sequence

from sync_net import Net, address_of_key, key_of

from pipeline.codec.avro import codec
from pipeline.codec.types import Address, Hash32, ShardId, TxId
from pipeline.crypto import contexts
from pipeline.ledger.packing import RELAY_ENTRY, pack_transfers
from pipeline.ledger.relay import EffectKind, RelayBundle, RelayGroup, channel_start
from pipeline.ledger.transactions import Operation, SignedTransaction, TransactionBody, Transfer
from pipeline.shards.allocator import ShardAllocator
from pipeline.shards.progress import Progress
from pipeline.shards.task import ShardTask


def effect(index: int, to: Address, amount: int) -> bytes:
    """One packed relay entry."""
    return RELAY_ENTRY.pack(index, to, amount.to_bytes(16, "big"))


class ShardingNet(Net):
    """A `pipeline.system.Driver`. `stalled` parts are not stepped: shards by number, or "sync"."""

    def __init__(self, shards: int = 2, max_shards: int = 1000) -> None:
        super().__init__(shards)
        self.allocator = ShardAllocator(self.chain, self.store_for, max_shards)
        self.sync = self.synchronizer = super().synchronizer()  # type: ignore[method-assign, assignment]
        self.stalled: set[int | str] = set()
        self.at_each_step: Callable[[], None] = lambda: None

    def run_until(self, condition: Callable[[], bool], timeout_ms: int | None = None) -> bool:
        deadline_ms = None if timeout_ms is None else self.now_ms + timeout_ms
        while not condition():
            if deadline_ms is not None and self.now_ms >= deadline_ms:
                return False
            if not self.step():
                self.now_ms += 1 if deadline_ms is None else max(1, (deadline_ms - self.now_ms) // 50)
        return True

    def step(self) -> bool:
        self.at_each_step()
        progressed = False
        running: Sequence[ShardTask] = [task for task in self.tasks if task.shard not in self.stalled]
        for task in running:
            progressed |= isinstance(task.step(self.now_ms), Progress)
        if "sync" not in self.stalled:
            progressed |= isinstance(self.sync.step(self.now_ms), Progress)
            if self.sync.error is not None:
                raise self.sync.error
        active = max(task.committed.control.active_shards for task in self.tasks)
        for number in range(len(self.tasks), active):
            self.allocator.allocate(ShardId(number))
            self.add_shard(number)
            progressed = True
        return progressed

    def signed(
        self, name: str, *operations: Operation, nonce: int | None = None, with_key: bool | None = None
    ) -> SignedTransaction:
        """A transaction under the next nonce, or under this one, which is then not counted."""
        key = key_of(name)
        if nonce is None:
            nonce = self.nonces.get(name, 0)
            self.nonces[name] = nonce + 1
        body = TransactionBody(self.chain.chain_id, address_of_key(key), nonce, operations).to_bytes()
        includes_key = nonce == 0 if with_key is None else with_key
        public_key = key.public_key if includes_key else None
        return SignedTransaction(body, key.suite_id, public_key, key.sign(body, contexts.TRANSACTION))

    def payment(self, name: str, to: dict[str, int], **how: int | bool | None) -> SignedTransaction:
        entries = pack_transfers([(address_of_key(key_of(other)), amount) for other, amount in to.items()])
        return self.signed(name, Transfer(self.asset, entries), **how)  # type: ignore[arg-type]

    def bundle(
        self, source: int, destination: int, sequence: int, groups: Sequence[RelayGroup] = (), head: bytes | None = None
    ) -> RelayBundle:
        """A bundle that no shard sent; `head`: of the one before, else the channel's start."""
        chain_id = self.chain.chain_id
        to = address_of_key(key_of(self.name_on(destination)))
        entry = RelayGroup(TxId(bytes(32)), bytes(32), self.asset, EffectKind.CREDIT, b"", effect(0, to, 5))
        previous = Hash32(head or channel_start(chain_id, source, destination))
        values = [{name: getattr(group, name) for name in RelayGroup.__slots__} for group in groups or [entry]]
        datum = codec("RelayGroups").encode({"groups": values})
        return RelayBundle(chain_id, ShardId(source), ShardId(destination), 0, 0, sequence, previous, datum)

    def shard_of(self, name: str) -> ShardId:
        return self.chain.shard_map.owner_of(address_of_key(key_of(name)))

    def name_on(self, shard: int, prefix: str = "actor") -> str:
        """A name whose account lives on this shard."""
        names = (f"{prefix}{number}" for number in range(10_000))
        return next(name for name in names if self.shard_of(name) == shard)
