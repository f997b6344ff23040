"""The state synchronizer: rounds, checkpoints, signatures, signed state roots."""
