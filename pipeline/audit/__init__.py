"""Replays the topics and recomputes every root."""
