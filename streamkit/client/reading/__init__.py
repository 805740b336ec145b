"""Streams that resume, and queries."""
