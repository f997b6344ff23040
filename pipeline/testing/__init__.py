"""Public test kit: deterministic signatures, faulty stores, the naive reference model."""
