"""Looking at, and writing to, the ledgers of these tests."""

from pathlib import Path

from command_line import CommandLine

from pipeline.cli.names import KeyRing
from pipeline.client.producer import Sender, TransactionProducer
from pipeline.client.receipts import ReceiptWatcher
from pipeline.crypto.addresses import parse_address
from pipeline.ledger.leaves import Account
from pipeline.ledger.transactions import Operation
from pipeline.node.node import Node
from pipeline.node.settling import settle


def balance(cli: CommandLine, directory: Path, name: str, asset: str = "UNIT") -> int:
    (found,) = cli.ok("account", directory, name, "--json").objects()
    return int(found["balances"].get(asset, "0"))


def two_on_different_shards(cli: CommandLine, directory: Path) -> tuple[str, str]:
    """The names of an account in the lower half of the slots, and of one in the upper."""
    found = [item for item in cli.ok("accounts", directory, "--json").objects() if len(item["name"]) == 1]
    low = next(item["name"] for item in found if parse_address(item["address"])[0] < 0x80)
    high = next(item["name"] for item in found if parse_address(item["address"])[0] >= 0x80)
    return low, high


def publish(directory: Path, name: str, *operations: Operation) -> None:
    """One transaction of an account that has sent nonces 0 to n - 1."""
    node = Node.open(directory)
    ring = KeyRing(node.layout)
    try:
        settle(node)
        watcher = ReceiptWatcher(node.log, node.chain.chain_id, range(2))
        account = ring.require(name)
        raw = node.tasks[node.chain.shard_map.owner_of(account.address)].store.view()
        leaf = raw.get(b"account/" + account.address)  # type: ignore[arg-type]
        assert leaf is not None
        sender = Sender(ring.key(account), Account.from_bytes(leaf))
        future = TransactionProducer(node.log, node.chain, watcher).send(sender, *operations)
        settle(node)
        watcher.poll()
        result = future.result()
        assert result is not None
        assert result.code == 0, result
    finally:
        ring.close()
        node.close()
