"""The whole system under one seeded scheduler: every run of a seed is the same run."""

from pipeline.testing.simulator.report import Report, SimulationFailed
from pipeline.testing.simulator.run import simulate

__all__ = ["Report", "SimulationFailed", "simulate"]
