"""Real processes that are killed under load, and the judgement of what they leave behind."""
