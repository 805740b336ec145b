"""A query as a pandas frame, and the same by PEP 249 for what knows nothing of streamkit."""

import os

import streamkit
from streamkit import dbapi

SQL = "SELECT topic, count(*) AS updates FROM updates GROUP BY topic ORDER BY topic"

with streamkit.Client() as client, client.query(SQL, format="arrow") as query:
    print(query.to_pandas())

with dbapi.connect(os.environ.get("STREAMKIT_SERVER", "localhost:50051")) as connection:
    cursor = connection.cursor()
    cursor.execute("SELECT max(sequence) FROM updates WHERE topic = :topic", {"topic": "orders.eu"})
    print("newest:", cursor.fetchone())
