"""Databases with an ADBC driver: DuckDB and PostgreSQL."""
