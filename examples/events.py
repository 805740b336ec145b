"""Server-sent events without any package: read some, break off, go on after the last id.

python events.py TOPIC COUNT      of a server with --web
"""

import http.client
import json
import os
import sys
from collections.abc import Iterator

ADDRESS = os.environ.get("STREAMKIT_SERVER", "localhost:50051")


def events(topic: str, last_id: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    connection = http.client.HTTPConnection(ADDRESS)
    headers = {"Last-Event-ID": last_id} if last_id else {}
    connection.request("GET", f"/v1/updates?topic={topic}&all=1", headers=headers)
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise SystemExit(response.read().decode())
    try:
        place, data = last_id, ""
        for raw in response:
            name, _, value = raw.decode().rstrip("\n").partition(": ")
            if name == "id":
                place = value
            elif name == "data":
                data += value
            elif not name and data:  # an empty line ends an event
                yield place, json.loads(data)
                data = ""
    finally:
        connection.close()


place = ""
for _ in range(int(sys.argv[2])):
    place, update = next(events(sys.argv[1], place))  # a connection for each: the id is enough
    print(place.rpartition(".")[2], update["message"])
