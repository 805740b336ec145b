"""The page: its files, who has logged in on it, and what it shows of the server."""
