"""SQLite files, guarded."""
