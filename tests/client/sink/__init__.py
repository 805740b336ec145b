"""A server's records in tables of PostgreSQL."""
