"""A chain in one process without a log: topics are lists, blocks run one by one, bundles are delivered at once.

For tests of the rules. Signatures are those of the deterministic suite; topics skip an offset after each block, as a
log's transaction markers do, so that nothing may rely on contiguous offsets.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

from pipeline.codec.topics import LogRecord
from pipeline.codec.types import (
    SLOTS,
    Address,
    AssetId,
    ChainId,
    Hash32,
    ShardId,
    StateKey,
    slot_of_id,
    tagged_hash,
)
from pipeline.crypto import contexts
from pipeline.crypto.addresses import address_of
from pipeline.crypto.suites import SuiteSet
from pipeline.crypto.verifier import InlineVerifier
from pipeline.kv.memory import MemoryKeyValue
from pipeline.ledger.chain import Chain
from pipeline.ledger.control import Action, KeySignature, SignedControl, control_hash, encode_action
from pipeline.ledger.cursor import ShardCursor
from pipeline.ledger.engine import BlockInputs, ExecutedBlock, InputBatch, execute
from pipeline.ledger.genesis import PROTOCOL, Genesis, SignerKey
from pipeline.ledger.leaves import Account, Balance, account_key, balance_key
from pipeline.ledger.packing import pack_transfers
from pipeline.ledger.receipts import Receipt, decode_receipt
from pipeline.ledger.transactions import (
    CreateAsset,
    Mint,
    Operation,
    RotateKey,
    SignedTransaction,
    TransactionBody,
    Transfer,
    asset_id_of,
    rotation_message,
)
from pipeline.state.store import StateStore
from pipeline.testing.suite import TEST_SUITES, DeterministicKey, DeterministicSuite

START_MS: Final = 1_700_000_000_000
SYMBOL: Final = b"UNIT"


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody with a key; the address stays when the key is rotated."""

    key: DeterministicKey
    address: Address

    @classmethod
    def of(cls, name: str) -> "Actor":
        """The actor of a name, always the same."""
        key = DeterministicSuite().generate(tagged_hash("test-actor", name.encode()))
        return cls(key, address_of(key.suite_id, key.public_key))

    @classmethod
    def on(cls, shard: int, shards: int, name: str) -> "Actor":
        """An actor whose slot belongs to `shard` of `shards`."""
        candidates = (cls.of(f"{name}#{number}") for number in count())
        return next(actor for actor in candidates if slot_of_id(actor.address) * shards // SLOTS == shard)

    def rotated(self, name: str) -> "Actor":
        """The same account with the key of another name."""
        return replace(self, key=Actor.of(name).key)


def transfer(asset: AssetId, *entries: tuple[Actor | Address, int], reference: bytes = b"") -> Transfer:
    """A Transfer to actors or addresses."""
    return Transfer(asset, pack_transfers((_address(to), amount) for to, amount in entries), reference)


def mint(asset: AssetId, *entries: tuple[Actor | Address, int], reference: bytes = b"") -> Mint:
    """A Mint for actors or addresses."""
    return Mint(asset, pack_transfers((_address(to), amount) for to, amount in entries), reference)


def rotate_key(chain_id: ChainId, owner: Actor, nonce: int, new: DeterministicKey) -> RotateKey:
    """A RotateKey that the new key has signed for this place."""
    message = rotation_message(chain_id, owner.address, nonce)
    return RotateKey(new.suite_id, new.public_key, new.sign(message, contexts.ROTATION))


def sign(actor: Actor, body: TransactionBody, *, with_key: bool = True) -> SignedTransaction:
    """The body under the actor's key."""
    datum = body.to_bytes()
    public_key = actor.key.public_key if with_key else None
    return SignedTransaction(datum, actor.key.suite_id, public_key, actor.key.sign(datum, contexts.TRANSACTION))


def build_genesis(shards: int, treasury: Actor, operators: Sequence[Actor], **changes: Any) -> Genesis:
    """Twice as many partitions as shards, operators by majority, and they attest too. `changes` replace fields."""
    keys = tuple(SignerKey(actor.key.suite_id, actor.key.public_key) for actor in operators)
    majority = len(keys) // 2 + 1
    genesis = Genesis(
        salt=Hash32(bytes(32)),
        name="test",
        created_ms=START_MS,
        shards=shards,
        partitions=2 * shards,
        attestors=keys,
        attestor_threshold=majority,
        operators=keys,
        operator_threshold=majority,
        fee_asset=asset_id_of(treasury.address, SYMBOL),
        treasury=treasury.address,
    )
    return replace(genesis, **changes)


class Partition:
    """One partition of a topic; `skip` leaves a hole."""

    __slots__ = ("end", "records")

    def __init__(self) -> None:
        """Empty."""
        self.records: list[LogRecord] = []
        self.end = 0

    def append(self, value: bytes | None, key: bytes | None = None) -> int:
        """The offset of the new record."""
        self.records.append(LogRecord(self.end, key, value))
        self.end += 1
        return self.end - 1

    def skip(self) -> None:
        """One offset that will never hold a record."""
        self.end += 1

    def batch(self, first: int, limit: int | None) -> InputBatch:
        """Records from `first` on, at most `limit`."""
        records = tuple(record for record in self.records if record.offset >= first)[:limit]
        return InputBatch(records[-1].offset + 1 if records else first, records)


@dataclass(frozen=True, slots=True)
class Block:
    """An executed and committed block, and its inputs."""

    executed: ExecutedBlock
    inputs: BlockInputs
    receipts: tuple[Receipt, ...]


class World:
    """All shards of one chain. The treasury lives on shard 0 unless given."""

    def __init__(
        self, shards: int = 1, *, treasury: Actor | None = None, suites: SuiteSet = TEST_SUITES, **genesis: Any
    ) -> None:
        """`genesis` replaces fields of `build_genesis`. No block is made yet."""
        self.treasury = treasury or Actor.on(0, shards, "treasury")
        self.operators = [Actor.of(f"operator {number}") for number in range(3)]
        self.chain = Chain.of(build_genesis(shards, self.treasury, self.operators, **genesis))
        self.asset = self.chain.genesis.fee_asset
        self.now_ms = START_MS
        self.verifier = InlineVerifier(suites)
        self.control = Partition()
        self.control.append(self.chain.genesis.to_record())
        partitions = range(self.chain.genesis.partitions)
        self.relay = [Partition() for _ in partitions]
        self.transactions = [Partition() for _ in partitions]
        self.cursors = [ShardCursor.start(self.chain, shard) for shard in partitions]
        owned = self.chain.shard_map.slots_of
        self.stores = [StateStore(MemoryKeyValue(), ShardId(shard), owned(shard)) for shard in partitions]
        self.blocks: list[list[Block]] = [[] for _ in partitions]
        self._control_sequence, self._control_head = 0, Hash32(self.chain.chain_id)
        self._nonces: dict[Address, int] = {}

    @property
    def shards(self) -> range:
        """The shards that genesis started."""
        return range(self.chain.genesis.shards)

    def actor(self, name: str, shard: int = 0) -> Actor:
        """An actor on a shard."""
        return Actor.on(shard, len(self.shards), name)

    def home(self, who: Actor | Address) -> ShardId:
        """The shard of an account."""
        return self.chain.shard_map.owner_of(_address(who))

    # Publishing

    def signed(
        self, actor: Actor, *operations: Operation, nonce: int | None = None, with_key: bool = True, **fields: Any
    ) -> SignedTransaction:
        """A transaction under the actor's next nonce (or the one given, which is then not counted)."""
        if nonce is None:
            nonce = self._nonces.get(actor.address, 0)
            self._nonces[actor.address] = nonce + 1
        fields = {"chain_id": self.chain.chain_id, "sender": actor.address, **fields}
        return sign(actor, TransactionBody(nonce=nonce, operations=operations, **fields), with_key=with_key)

    def submit(self, *transactions: SignedTransaction | bytes | None, shard: int | None = None) -> list[int]:
        """Publish to the sender's shard (or the one given); the offsets. Bytes are published as they are."""
        offsets = []
        for item in transactions:
            record, target = item, shard
            if isinstance(item, SignedTransaction):
                record = item.to_record()
                if target is None:
                    target = self.home(TransactionBody.from_bytes(item.body).sender)
            assert record is None or isinstance(record, bytes)
            offsets.append(self.transactions[target or 0].append(record))
        return offsets

    def govern(self, action: Action, *, signers: Iterable[Actor] | None = None, **fields: Any) -> int:
        """Publish the next control record, signed by all operators (or `signers`); its offset.

        `fields` replace those of the record; the next record follows this one only where there are none.
        """
        body = encode_action(PROTOCOL, action)
        control = SignedControl(self.chain.chain_id, self._control_sequence + 1, self._control_head, body)
        control = replace(control, **fields)
        message = control.message()
        signatures = tuple(
            KeySignature(
                SignerKey(actor.key.suite_id, actor.key.public_key).key_id,
                actor.key.suite_id,
                actor.key.sign(message, contexts.CONTROL),
            )
            for actor in (self.operators if signers is None else signers)
        )
        control = replace(control, signatures=signatures)
        if not fields and signers is None:
            self._control_sequence, self._control_head = control.sequence, control_hash(control.to_bytes())
        return self.control.append(control.to_record())

    # Executing

    def pending(self, shard: int, limit: int | None = None) -> BlockInputs:
        """What the shard's next block would consume; `limit` bounds relay and transactions, each."""
        control, relay, transactions = self.cursors[shard].positions
        return BlockInputs(
            self.control.batch(control, None),
            self.relay[shard].batch(relay, limit),
            self.transactions[shard].batch(transactions, limit),
        )

    def execute(self, shard: int, inputs: BlockInputs | None = None, timestamp_ms: int | None = None) -> ExecutedBlock:
        """Execute a block and keep nothing of it."""
        cursor, view = self.cursors[shard], self.stores[shard].view()
        inputs = inputs or self.pending(shard)
        now_ms = self.now_ms if timestamp_ms is None else timestamp_ms
        return execute(self.chain, cursor, view, inputs, now_ms, self.verifier)

    def run_block(
        self,
        shard: int,
        transactions: Iterable[SignedTransaction | bytes] = (),
        *,
        limit: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Block:
        """Publish transactions to the shard, execute everything pending there, commit, deliver bundles."""
        self.submit(*transactions, shard=shard)
        inputs = self.pending(shard, limit)
        executed = self.execute(shard, inputs, timestamp_ms)
        self.stores[shard].commit(executed.prepared, {b"cursor": executed.cursor.to_bytes()})
        self.cursors[shard] = executed.cursor
        for bundle in executed.bundles:
            self.relay[bundle.destination].append(bundle.to_record())
        for partition in [self.control, *self.relay, *self.transactions]:
            partition.skip()
        block = Block(executed, inputs, tuple(decode_receipt(datum) for datum in executed.receipts))
        self.blocks[shard].append(block)
        return block

    def settle(self) -> None:
        """Make blocks until no shard has anything to consume."""
        while busy := [shard for shard in self.shards if self._has_input(shard)]:
            for shard in busy:
                self.run_block(shard)

    def start(self, *holders: Actor, amount: int = 1_000_000) -> None:
        """Genesis on every shard; the treasury creates the fee asset and mints `amount` for each holder; settled."""
        entries = [(holder, amount) for holder in holders]
        operations: list[Operation] = [CreateAsset(SYMBOL, 2)]
        if entries:
            operations.append(mint(self.asset, *entries))
        self.submit(self.signed(self.treasury, *operations))
        self.settle()

    def _has_input(self, shard: int) -> bool:
        inputs = self.pending(shard)
        return any(batch.records for batch in (inputs.control, inputs.relay, inputs.transactions))

    # Looking

    def value(self, key: StateKey, shard: int) -> bytes | None:
        """A committed leaf."""
        return self.stores[shard].view().get(key)

    def balance(self, who: Actor | Address, asset: AssetId | None = None) -> Balance:
        """The committed balance, of the fee asset unless given."""
        key = balance_key(_address(who), asset or self.asset)
        return Balance.from_bytes(self.value(key, self.home(who)))

    def account(self, who: Actor | Address) -> Account | None:
        """The committed account, if there is one."""
        value = self.value(account_key(_address(who)), self.home(who))
        return None if value is None else Account.from_bytes(value)

    def leaves(self, shard: int) -> Mapping[StateKey, bytes]:
        """All committed leaves of a shard."""
        return dict(self.stores[shard].scan_keys())


def _address(who: Actor | Address) -> Address:
    return who.address if isinstance(who, Actor) else who
