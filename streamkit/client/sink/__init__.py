"""A server's records into the tables of a database."""
