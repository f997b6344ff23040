"""The whole system under one seeded scheduler: every run of a seed is the same run."""

from pipeline.testing.simulator.plan import Plan, draw_plan
from pipeline.testing.simulator.report import Report, SimulationFailed
from pipeline.testing.simulator.run import run_plan, simulate
from pipeline.testing.simulator.shrink import Shrunk, shrink

__all__ = ["Plan", "Report", "Shrunk", "SimulationFailed", "draw_plan", "run_plan", "shrink", "simulate"]
