"""HTTP: its first version on a connection, requests taken apart, and who may ask at all."""
