"""Rows to messages, as text and as Arrow."""
