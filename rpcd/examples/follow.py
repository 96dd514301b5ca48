#!/usr/bin/env python3
"""Shows a node and follows it by JSON-RPC: follow.py [SOCKET [EVENTS]]. It ends after so many events, if a number is given.

It needs nothing but Python's standard library, and the right to open the socket: root has it, and the group i2plan.
"""

import itertools
import json
import socket
import sys


class Node:
    """A connection to a node. Calls go one after the other."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.numbers = itertools.count(1)

    def call(self, method, **params):
        request = {"jsonrpc": "2.0", "id": next(self.numbers), "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        line = self.lines.readline()
        if not line:
            raise ConnectionError("the node has closed the connection")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]


def main(path="/run/i2plan/rpc.sock", events=None):
    node, follower = Node(path), Node(path)
    status = node.call("status")
    print(f"{status['name']}: {len(node.call('peers.list')['peers'])} peers", flush=True)
    left, after = None if events is None else int(events), None
    while left is None or left > 0:
        answer = follower.call("events.poll", after=after, wait=10_000)
        after = answer["next"]
        if answer["lost"]:
            print(f"events were missed: {len(node.call('peers.list')['peers'])} peers now")
        for event in answer["events"]:
            left = left and left - 1
            print(f"event {event['number']}: {event['event']}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
