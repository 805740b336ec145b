"""A journal with a copy on every server: writes go through one totally ordered, durable log."""
