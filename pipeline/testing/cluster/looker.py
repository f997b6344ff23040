"""A client that reads: it verifies roots, proves balances, follows receipts, and records what it sees."""

import logging
from random import Random
from typing import Final

from pipeline.client.light import LightClient
from pipeline.client.proof_file import prove
from pipeline.client.receipts import ReceiptWatcher
from pipeline.client.subscriber import StateRootSubscriber
from pipeline.client.trust import Trust
from pipeline.codec.types import Address, ShardId
from pipeline.crypto.verifier import Verifier
from pipeline.errors import Fatal, Retryable, VerificationFailed
from pipeline.ledger.checkpoints import Assurance
from pipeline.ledger.leaves import Balance, balance_key
from pipeline.node.reader import LedgerView
from pipeline.shards.signed_roots import SignedRoots
from pipeline.testing.cluster.history import Event, Proved, Recorder, Refused, SawRoot, Told
from pipeline.testing.cluster.observed import receipt_digest
from pipeline.testing.cluster.people import everyone, unit_of

_LOGGER: Final = logging.getLogger(__name__)
_LOOKS: Final = 4
_PAUSE_MS: Final = 15


class Looker:
    """Reads a ledger through a view, which it does not close, and the view's log."""

    def __init__(self, name: str, view: LedgerView, verifier: Verifier, recorder: Recorder, random: Random) -> None:
        """Begins with the oldest root."""
        chain = view.chain
        shards = range(chain.genesis.shards)
        self._name = name
        self._view = view
        self._recorder = recorder
        self._random = random
        self._unit = unit_of(chain)
        self._addresses = [person.address for person in everyone()]
        self._roots = SignedRoots(chain, view.log, verifier)
        self._client = LightClient(Trust.of(chain, Assurance.HEADERS), verifier)
        self._subscriber = StateRootSubscriber(view.log, self._client, shards)
        self._watcher = ReceiptWatcher(view.log, chain.chain_id, shards)
        self._unproved: set[Address] = set()
        self._reasons: set[str] = set()

    @property
    def is_resting(self) -> bool:
        """Whether everyone's balance was proved since `ask_all`."""
        return not self._unproved

    def ask_all(self) -> None:
        """Prove every account once more."""
        self._unproved = set(self._addresses)

    def play(self) -> None:
        """Tell what is new, and prove somebody's balance if the newest block is signed."""
        try:
            self._look()
            self._prove(self._random.choice(self._addresses))
        except Retryable as error:
            self._wait(error)

    def follow(self) -> None:
        """Tell what is new, and go on with what `ask_all` began."""
        try:
            self._look()
            for address in sorted(self._unproved):
                if not self._prove(address):
                    break
        except Retryable as error:
            self._wait(error)

    def _wait(self, error: Retryable) -> None:
        """The next call tries again; whoever watches the process hears of each reason once."""
        if str(error) not in self._reasons:
            self._reasons.add(str(error))
            _LOGGER.warning("%s: %s", self._name, error)

    def _look(self) -> None:
        events: list[Event] = []
        for root in self._subscriber.catch_up():
            head, round_number = root.state_root, root.checkpoint.round
            place = (int(head.shard), int(head.height))
            hashes = (head.block_hash.hex(), head.state_root.hex())
            events.append(SawRoot(self._name, *place, *hashes, round_number, root.checkpoint_hash.hex()))
        events += [Refused(self._name, str(refused.error)) for refused in self._subscriber.refused]
        self._subscriber.refused.clear()
        if self._watcher.poll():
            for receipt in self._watcher.transactions():
                digest, code = receipt_digest(receipt), int(receipt.code)
                told = (receipt.partition, receipt.offset, digest, code, receipt.nonce_consumed)
                events.append(Told(self._name, *told))
            self._watcher.forget()
        self._recorder.tell(events)

    def _prove(self, address: Address) -> bool:
        """False where the newest block of the shard is not signed yet."""
        view = self._view
        view.refresh()
        shard = view.chain.shard_map.owner_of(address)
        height = view.cursor(shard).height
        for _ in range(_LOOKS):
            head = self._roots.newest_head(shard)
            if head is None:
                return False
            if head.root.height == height:
                break
            view.log.wait(_PAUSE_MS)
        else:
            return False
        try:
            proof = prove(view.stores[shard], balance_key(address, self._unit), head.signed)
            verified = self._client.verify(proof, 0)
            amount = Balance.from_bytes(verified.value).amount
        except (VerificationFailed, Fatal) as error:
            self._recorder.tell([Refused(self._name, f"the balance of {address.hex()[:16]}: {error}")])
        else:
            place = (int(ShardId(shard)), int(height))
            self._recorder.tell([Proved(self._name, address.hex(), self._unit.hex(), amount, *place)])
        self._unproved.discard(address)
        return True
