"""The functions that are generated for each message class."""
