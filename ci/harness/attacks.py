"""What hostile clients do, one function each: it opens its connections on a `Crowd`, goes on until a moment, and returns a note.

They know the protocol and no broker process. None of them judges: that nothing but themselves is harmed is seen by others.
"""

import os
import random
import socket
import struct
import threading
import time

import bombs
import wire

FILLED, POLLED, PLAIN, KEYED, SILENT = "filled", "polled", "plain", "keyed", "silent"
PARTITIONS = 8
LARGE = 55 << 20
REFUSED_SECONDS_MAX = 20


class Crowd:
    """Connections of hostile clients, all from one address, and how many there were at once."""

    def __init__(self, bootstrap, source):
        self.bootstrap = bootstrap
        self.source = source
        self.open = []
        self.most = 0

    def connect(self, count=1, seconds_max=10, blocking=False):
        """New connections; those that the broker closes at once are among them."""
        made = []
        for _ in range(count):
            s = wire.connect(self.bootstrap, self.source, seconds_max)
            if not blocking:
                s.setblocking(False)
            made.append(s)
            self.open.append(s)
        self.most = max(self.most, len(self.open))
        return made

    def drop(self, s, reset=False):
        if reset:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        self.open.remove(s)

    def drop_all(self):
        """With a reset: ten thousand ports that linger would be missing later."""
        while self.open:
            self.drop(self.open[-1], reset=True)


def push(s, data):
    """Sends what the socket takes; returns how much that was, or None when the connection has ended."""
    try:
        return s.send(data)
    except BlockingIOError:
        return 0
    except OSError:
        return None


def ended(s):
    """Whether the broker has closed the connection; what it sent before is thrown away."""
    try:
        while True:
            if not s.recv(1 << 16):
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def sleep_until(moment):
    time.sleep(max(0, moment - time.monotonic()))


def valid_requests(chance):
    """Frames that a client might send, to be spoilt."""
    records = wire.batch(wire.record(0, chance.randbytes(200)))
    return [
        wire.request(wire.API_VERSIONS),
        wire.request(wire.METADATA, wire.array([wire.string(PLAIN)])),
        wire.request(wire.PRODUCE, wire.produce(PLAIN, 0, records)),
        wire.request(wire.FETCH, wire.fetch(PLAIN, [(0, 0)], wire.Want())),
        wire.request(wire.LIST_OFFSETS, wire.list_offsets(PLAIN, [(0, -1)])),
    ]


def garbage(crowd, until):
    """Noise, other protocols, and real requests with some bytes changed."""
    chance = random.Random("garbage")
    requests = valid_requests(chance)
    hellos = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes.fromhex("1603010200010001fc0303"), b"\0" * 4096, b"\xff" * 4096]
    sent = 0
    while time.monotonic() < until:
        for s in crowd.connect(20):
            kind = chance.randrange(4)
            if kind == 0:
                data = chance.randbytes(chance.randrange(1, 65536))
            elif kind == 1:
                data = wire.framed(chance.randbytes(chance.randrange(1, 2000)))
            elif kind == 2:
                data = chance.choice(hellos)
            else:
                data = bytearray(chance.choice(requests))
                for _ in range(chance.randrange(1, 6)):
                    data[chance.randrange(4, len(data))] = chance.randrange(256)
            push(s, data)
            sent += 1
        if len(crowd.open) >= 400:
            for s in crowd.open[:200]:
                crowd.drop(s, reset=chance.random() < 0.5)
        time.sleep(0.01)
    return f"{sent} connections"


def half_frames(crowd, until):
    """The beginning of a request, then silence. The connections stay, for the broker to close."""
    records = wire.batch(wire.record(0, bytes(200)))
    real = wire.request(wire.PRODUCE, wire.produce(PLAIN, 0, records))
    for s in crowd.connect(100):
        push(s, real[:2])
    for s in crowd.connect(100):
        push(s, real[:-1])
    for s in crowd.connect(100):
        push(s, struct.pack(">i", 1 << 20) + real[4:])
    sleep_until(until)
    return "300 connections"


class Drip:
    """Sends one byte a second on each of many connections, until it is stopped."""

    def __init__(self):
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.streams = []

    def start(self, streams):
        """`streams` has (socket, bytes) pairs."""
        self.streams = streams
        self.thread.start()

    def stop(self):
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join()

    def _run(self):
        at = 0
        while not self.stopping.wait(1):
            for s, data in self.streams:
                push(s, data[at % len(data) :][:1])
            at += 1


def slow_requests(crowd, until, drip):
    """One byte a second of a real request; these connections stay, too."""
    real = wire.request(wire.PRODUCE, wire.produce(PLAIN, 0, wire.batch(wire.record(0, bytes(200)))))
    large = struct.pack(">i", 1 << 20) + real[4:]
    made = crowd.connect(500)
    drip.start([(s, large if n % 5 == 0 else real) for n, s in enumerate(made)])
    sleep_until(until)
    return "500 connections"


def lying_requests():
    """Real requests whose counts and lengths claim far more than is there."""
    for count in (0x7FFFFFFF, -2, 100_000_000):
        n = struct.pack(">i", count)
        yield wire.request(wire.METADATA, n)
        yield wire.request(wire.PRODUCE, struct.pack(">hhi", -1, -1, 1000) + n)
        yield wire.request(wire.PRODUCE, struct.pack(">hhi", -1, -1, 1000) + wire.array([wire.string(PLAIN) + n]))
        one = struct.pack(">ii", 0, count)
        yield wire.request(wire.PRODUCE, struct.pack(">hhi", -1, -1, 1000) + wire.array([wire.string(PLAIN) + wire.array([one])]))
        yield wire.request(wire.FETCH, struct.pack(">iiiibii", -1, 0, 0, LARGE, 0, 0, -1) + n)
        yield wire.request(wire.LIST_OFFSETS, struct.pack(">i", -1) + wire.array([wire.string(PLAIN) + n]))
        yield wire.request(wire.CREATE_TOPICS, n + struct.pack(">ib", 1000, 0))
        yield wire.request(wire.INCREMENTAL_ALTER_CONFIGS, n + b"\0")
    # As many partitions as an integer can say, of a topic that is only to be validated.
    one = wire.string("many") + struct.pack(">ih", 0x7FFFFFFF, 1) + wire.array([]) + wire.array([])
    yield wire.request(wire.CREATE_TOPICS, wire.array([one]) + struct.pack(">ib", 1000, 1))


def dense_requests():
    """Requests that tell the truth: hundreds of thousands of the smallest items there are, each of which gets an answer."""
    nothing = wire.string("")
    yield wire.request(wire.METADATA, wire.array([nothing] * 500_000))
    yield wire.request(wire.FETCH, wire.fetch(PLAIN, [(0, 0)] * 30_000, wire.Want(LARGE)))
    yield wire.request(wire.FETCH, wire.fetch(PLAIN, [(99_999, 0)] * 30_000, wire.Want(LARGE)))
    yield wire.request(wire.LIST_OFFSETS, wire.list_offsets(PLAIN, [(0, -1)] * 50_000))
    yield wire.request(wire.LIST_OFFSETS, struct.pack(">i", -1) + wire.array([nothing + wire.array([])] * 150_000))
    yield wire.request(wire.PRODUCE, struct.pack(">hhi", -1, -1, 1000) + wire.array([nothing + wire.array([])] * 150_000))
    yield wire.request(wire.DELETE_TOPICS, wire.array([nothing] * 500_000) + struct.pack(">i", 1000))


def huge_claims(crowd, until):
    """Frames of any claimed size, and requests with huge arrays, claimed and real."""
    small = wire.header(wire.PRODUCE)
    lies, dense = list(lying_requests()), list(dense_requests())
    rounds = 0
    while time.monotonic() < until:
        for size in (-1, -(2**31), 0x7FFFFFFF, (100 << 20) + 1):
            push(crowd.connect()[0], struct.pack(">i", size) + small)
        # Allowed sizes, of which nothing more comes.
        for size in (100 << 20, 50 << 20, 10 << 20):
            for s in crowd.connect(8):
                push(s, struct.pack(">i", size) + small + bytes(4000))
        for lie in lies:
            push(crowd.connect()[0], lie)
        for real in dense:
            for s in crowd.connect(2, blocking=True):
                try:
                    s.sendall(real)
                except OSError:
                    # Closed before it had all of it, or not read from: both are its right.
                    pass
                s.setblocking(False)
        rounds += 1
        time.sleep(0.5)
        for s in crowd.open[:-200]:
            crowd.drop(s, reset=True)
    return f"{rounds} times {len(lies)} lies and {len(dense)} dense requests"


def stored_bombs(crowd, until):
    """Batches that inflate enormously, produced and read where the broker need not look into them."""
    kinds = {codec: bombs.batch(codec) for codec in bombs.NAMES}
    stored = 0
    with wire.Client(crowd.bootstrap, crowd.source) as client:
        while stored < len(kinds) or time.monotonic() < until:
            codec = list(kinds)[stored % len(kinds)]
            offset = client.produce(PLAIN, codec, kinds[codec])
            if not wire.same_batch(client.fetch(PLAIN, codec, offset)[: len(kinds[codec])], kinds[codec]):
                raise AssertionError(f"the {bombs.NAMES[codec]} bomb came back with other bytes")
            stored += 1
    return f"{stored} stored, as they are"


def opened_bombs(crowd, until):
    """The same where the broker has to look into them: records searched by time, and keys that compaction needs."""
    now_ms = int(time.time() * 1000)
    kinds = {codec: bombs.batch(codec) for codec in bombs.NAMES}
    with wire.Client(crowd.bootstrap, crowd.source) as client:
        for codec in kinds:
            client.produce(PLAIN, codec, bombs.disguised(codec, now_ms, now_ms + 60_000))
    # One question for each partition: the same one twice in a request is refused.
    questions = wire.request(wire.LIST_OFFSETS, wire.list_offsets(PLAIN, [(codec, now_ms + 30_000) for codec in kinds]))
    asked = 0
    while asked == 0 or time.monotonic() < until:
        for s in crowd.connect(4):
            asked += len(kinds) * 50 * bool(push(s, questions * 50))
        for s in crowd.connect(4, blocking=True):
            for bomb in kinds.values():
                try:
                    s.sendall(wire.request(wire.PRODUCE, wire.produce(KEYED, 0, bomb)))
                except OSError:
                    # Its own loss.
                    break
                asked += 1
            s.setblocking(False)
        time.sleep(0.5)
        for s in crowd.open[:-64]:
            crowd.drop(s, reset=True)
    return f"{asked} to be opened"


def never_reads(crowd, until):
    """Asks for everything there is, again and again, and takes nothing."""
    everything = [(p, 0) for p in range(PARTITIONS)]
    one = wire.request(wire.FETCH, wire.fetch(FILLED, everything, wire.Want(LARGE)))
    made = crowd.connect(200)
    sent = 0
    while time.monotonic() < until:
        for s in made:
            sent += bool(push(s, one))
        time.sleep(0.05)
    return f"{sent} fetches of up to 55 MiB on {len(made)} connections"


def polls_wake_together(crowd, until):
    """Many long polls wait for the same records, wake at once, and nobody takes what they found."""
    everything = [(p, 0) for p in range(PARTITIONS)]
    want = wire.Want(LARGE, wait_ms=60_000, min_bytes=4 << 20)
    one = wire.request(wire.FETCH, wire.fetch(POLLED, everything, want))
    made = crowd.connect(400)
    for s in made:
        push(s, one)
    time.sleep(0.5)
    records = wire.batch(wire.record(0, bytes(900_000)))
    with wire.Client(crowd.bootstrap, crowd.source) as client:
        for n in range(2 * PARTITIONS):
            client.produce(POLLED, n % PARTITIONS, records)
    sleep_until(until)
    return f"{len(made)} polls for 4 MiB"


def storm(crowd, until):
    """Connections that come and go as fast as one process can, some with a request whose answer nobody awaits."""
    hello = wire.request(wire.API_VERSIONS)
    count = 0
    while time.monotonic() < until:
        for s in crowd.connect(50):
            if count % 3 == 0:
                push(s, hello)
            # Mostly with a reset: otherwise the ports of this address run out before the broker does.
            crowd.drop(s, reset=count % 20 != 0)
            count += 1
    return f"{count} connections"


def pipelines(crowd, until):
    """Requests without end on connections whose answers nobody reads."""
    requests = valid_requests(random.Random("pipelines"))
    requests.append(wire.request(wire.FETCH, wire.fetch(SILENT, [(0, 0)], wire.Want(LARGE, wait_ms=300_000, min_bytes=1))))
    # Few kinds on each: an order of its own per connection.
    stream = [b"".join(requests[(n + k) % len(requests)] for k in range(400)) for n in range(len(requests))]
    made = [[s, stream[n % len(stream)], 0] for n, s in enumerate(crowd.connect(60))]
    sent = 0
    while time.monotonic() < until:
        for one in made:
            s, data, at = one
            done = push(s, data[at:]) or 0
            sent += done
            one[2] = (at + done) % len(data)
        time.sleep(0.02)
    return f"{sent / (1 << 20):.1f} MiB of requests on {len(made)} connections"


def idle(crowd, until, count, allow):
    """As many connections as were asked for, a tenth of which have said hello. First with the caps as they are."""
    cap = 8192
    made = crowd.connect(count)
    gone = []
    # They were accepted by the kernel; the broker has yet to see each and to refuse those beyond the cap.
    deadline = time.monotonic() + REFUSED_SECONDS_MAX
    while len(gone) < count - cap and time.monotonic() < deadline:
        time.sleep(0.1)
        gone = [s for s in made if ended(s)]
    if len(gone) < count - cap:
        raise AssertionError(f"{count - len(gone)} connections of one address are open, {cap} are allowed")
    for s in gone:
        crowd.drop(s)
    allow(count + 1000)
    crowd.connect(count - len(crowd.open))
    for s in crowd.open[::10]:
        push(s, wire.request(wire.API_VERSIONS))
    sleep_until(until)
    alive = sum(not ended(s) for s in crowd.open)
    if alive != count:
        raise AssertionError(f"{alive} of {count} connections are still open")
    return f"{len(gone)} refused at the cap of {cap}; with a higher one {alive} open"
