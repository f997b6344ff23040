"""docs/architecture.md names only what exists, and maps every name of the original text."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
DOTTED = sorted(set(re.findall(r"`((?:pipeline|topologies)\.[A-Za-z0-9_.]+)`", TEXT)))

ORIGINAL = """
ShardingSystem SystemState active_shards system_metrics SystemMetrics system_configuration SystemConfiguration
shard_manager cross_shard_communicator state_synchronizer system_state ShardingSystem::new start_sharding_system
initialize_system_state ShardingSystem::create_shard process_transaction validate_shard_config validate_transaction
determine_target_shard requires_cross_shard_communication ShardManager ManagerState managed_shards manager_state
manager_metrics ManagerMetrics ShardAllocator shard_allocator LoadBalancer load_balancer ShardValidator
shard_validator start_management initialize_manager_state start_allocation start_balancing start_validation
ShardManager::create_shard allocate_shard_resources validate_shard process_transaction_in_shard
transaction_belongs_to_shard update_shard_load CrossShardCommunicator CommunicatorState communicator_state
cross_shard_messages CommunicatorMetrics communicator_metrics MessageRouter message_router CrossShardValidator
cross_shard_validator CommunicationMonitor communication_monitor start_communication initialize_communicator_state
start_routing start_monitoring initialize_shard_communication handle_cross_shard_transaction
validate_transaction_result generate_message_id route_cross_shard_message validate_cross_shard_communication
monitor_cross_shard_communication StateSynchronizer SynchronizerState synchronizer_state synchronized_states
SynchronizerMetrics synchronizer_metrics StateManager state_manager SynchronizationValidator
synchronization_validator StateMonitor state_monitor start_synchronization initialize_synchronizer_state
initialize_shard_synchronization synchronize_shard_state get_shard_state calculate_new_state
validate_state_transition update_shard_state monitor_state_synchronization calculate_state_hash Shard shard_id
ShardConfig Transaction source_shard target_shard data TransactionResult CrossShardMessage message_id
transaction_data transaction_result timestamp CrossShardResult routing_result communication_timestamp
SynchronizedState state_hash synchronization_timestamp StateSynchronizationResult new_state
cached_process_transaction compute_transaction_cache_key transaction_cache parallel_process_transactions
secure_process_transaction validate_transaction_security check_sharding_limits ShardingSystemConfig
ShardingSystemConfig::new max_shards shard_creation_timeout transaction_processing_timeout
cross_shard_communication_timeout state_synchronization_timeout enable_parallel_processing
enable_sharding_optimization ShardingError InvalidShardConfig InvalidTransaction InvalidShard
InvalidCrossShardMessage ShardCreationFailed TransactionProcessingFailed CrossShardCommunicationFailed
StateSynchronizationFailed SecurityValidationFailed ShardingLimitsExceeded InvalidTransactionResult
TransactionDoesNotBelongToShard ShardManagementFailed ShardAllocationFailed LoadBalancingFailed
StateManagementFailed shards_created transactions_processed cross_shard_messages_sent states_synchronized
"""


def rows() -> list[tuple[str, str]]:
    """(original, here) of every row of the tables."""
    table = TEXT[TEXT.index("## The original architecture") :]
    found = [
        tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines() if line[:1] == "|"
    ]
    assert all(len(cells) == 2 for cells in found)
    return [(left, right) for left, right in found if left != "original" and set(left) != {"-"}]


def resolve(name: str) -> bool:
    """Whether `name` is a module, or an attribute or declared field reached from one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                classes = getattr(found, "__mro__", ())
                return part == parts[-1] and any(part in getattr(one, "__annotations__", {}) for one in classes)
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("name", DOTTED)
def test_every_dotted_name_exists(name: str) -> None:
    assert resolve(name), f"docs/architecture.md names {name}, which is not there"


def test_resolving_tells_what_is_not_there() -> None:
    assert resolve("pipeline.errors.ConfigError")
    assert resolve("pipeline.config.ShardConfig.linger_ms")
    assert not resolve("pipeline.errors.NoSuchError")
    assert not resolve("pipeline.no_such_module")
    assert not resolve("pipeline.errors.ConfigError.nothing")


def test_every_name_of_the_original_text_has_a_place() -> None:
    named = {name for left, right in rows() if right for name in re.findall(r"`([^`]+)`", left)}
    assert [name for name in ORIGINAL.split() if name not in named] == []


def test_every_attack_vector_and_performance_row_has_a_place() -> None:
    lefts = [left for left, right in rows() if right]
    for start in (
        *("shard manipulation", "cross-shard attacks", "state manipulation", "load balancing attacks"),
        *("shard creation 1,000,000", "transaction processing 500,000", "cross-shard communication 1,500,000"),
        "state synchronization 2,000,000",
    ):
        assert sum(left.startswith(start) for left in lefts) == 1, start


def test_every_package_stands_in_the_table_of_layers() -> None:
    packages = {f"pipeline/{path.parent.name}" for path in (ROOT / "pipeline").glob("*/__init__.py")}
    named = set(re.findall(r"`(pipeline/[a-z]+)`", TEXT))
    assert packages <= named


def test_links_between_documents_lead_somewhere() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    broken = [
        f"{document.name}: {target}"
        for document in documents
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_layers_that_imports_obey_are_those_of_the_table() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in contracts if contract["type"] == "layers")["layers"]
    named = {part.strip(" ()") for layer in layers for part in layer.split("|")}
    packages = {f"pipeline.{path.parent.name}" for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert packages - {"pipeline.data"} <= named
