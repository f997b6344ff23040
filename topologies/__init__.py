"""Runnable wiring of the pipeline, and nothing else."""
