"""python follow.py LIBRARY URL: follows with httpx-sse or sseclient-py, and prints each event as a line of JSON."""

import json
import sys

import httpx
import httpx_sse
import sseclient


def show(event):
    print(json.dumps({"event": event.event, "id": event.id, "data": event.data}), flush=True)


library, url = sys.argv[1:]
with httpx.Client(timeout=None, trust_env=False) as client:
    if library == "httpx-sse":
        with httpx_sse.connect_sse(client, "GET", url) as source:
            for event in source.iter_sse():
                show(event)
    else:
        with client.stream("GET", url) as response:
            for event in sseclient.SSEClient(response.iter_bytes()).events():
                show(event)
