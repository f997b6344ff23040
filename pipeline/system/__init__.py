"""The sharding system: one object over a node, with the operations that the original architecture names."""

from pipeline.system.driver import Driver
from pipeline.system.results import SystemMetrics, SystemState, TransactionResult
from pipeline.system.sharding_system import ShardingSystem

__all__ = ["Driver", "ShardingSystem", "SystemMetrics", "SystemState", "TransactionResult"]
