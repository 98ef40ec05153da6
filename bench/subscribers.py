"""A process that subscribes to one run's log over many WebSockets; `bench.queue` starts it.

It prints `ready` when each subscriber has received an entry.  At the end of the run it prints JSON: by the sequence of
an entry, when the first and the last subscriber received it, in seconds of the monotonic clock, and how many
subscribers did not receive all entries in order.  While entries arrive they are only recorded: what a client does with
them is not measured.
"""

import argparse
import asyncio
import json
import time

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

AT_ONCE = 20  # that connect
WATCH = (
    "subscription($id: ID!) { runLog(runId: $id) { entries { sequence at level phase message } complete endCursor } }"
)

Noted = list[tuple[float, bytes]]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("url", "token", "run"):
        parser.add_argument(name)
    parser.add_argument("count", type=int)
    parsed = parser.parse_args()
    followed = asyncio.run(follow(parsed.url, parsed.token, parsed.run, parsed.count))
    print(json.dumps(summary(followed)), flush=True)


async def follow(url: str, token: str, run_id: str, count: int) -> list[Noted]:
    """Return what each of the subscribers received, and when."""
    ready, gate = asyncio.Semaphore(0), asyncio.Semaphore(AT_ONCE)

    async def one() -> Noted:
        noted = Noted()
        async with gate:
            connection = await connect(
                url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None, max_size=None, max_queue=None
            )
            await _subscribe(connection, token, run_id)
        noted.append((time.monotonic(), await connection.recv(decode=False)))
        ready.release()
        while b'"complete"' not in noted[-1][1][:40]:
            message = await connection.recv(decode=False)
            noted.append((time.monotonic(), message))
            if message.startswith(b'{"type":"ping"'):
                await connection.send('{"type":"pong"}')
        await connection.close()
        return noted

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one()) for _ in range(count)]
        for _ in tasks:
            await ready.acquire()
        print("ready", flush=True)
    return [task.result() for task in tasks]


async def _subscribe(connection: ClientConnection, token: str, run_id: str) -> None:
    payload = {"authorization": f"Bearer {token}"}
    await connection.send(json.dumps({"type": "connection_init", "payload": payload}))
    assert json.loads(await connection.recv())["type"] == "connection_ack"
    operation = {"query": WATCH, "variables": {"id": run_id}}
    await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": operation}))


def summary(followed: list[Noted]) -> dict[str, object]:
    first, last = dict[int, float](), dict[int, float]()
    seen = [_sequences(noted, first, last) for noted in followed]
    whole = list(range(1, max(map(len, seen)) + 1))
    return {"first": first, "last": last, "wrong": sum(sequences != whole for sequences in seen)}


def _sequences(noted: Noted, first: dict[int, float], last: dict[int, float]) -> list[int]:
    """Return the sequences that one subscriber received, in that order; updates `first` and `last`."""
    sequences = []
    for moment, text in noted:
        message = json.loads(text)
        if message["type"] != "next":
            continue
        for entry in message["payload"]["data"]["runLog"]["entries"]:
            sequence = entry["sequence"]
            sequences.append(sequence)
            first[sequence] = min(moment, first.get(sequence, moment))
            last[sequence] = max(moment, last.get(sequence, moment))
    return sequences


if __name__ == "__main__":
    main()
