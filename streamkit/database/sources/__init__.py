"""Where queries run: one room an engine."""
