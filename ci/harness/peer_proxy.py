"""As much of the Toxiproxy HTTP interface as a suite needs that was written for it: TCP proxies that can be cut off.

It knows no Kafka. Every proxy leads to one address, whatever upstream it is made with.
"""

import http.server
import json
import socket
import struct
import threading
import time


class Proxy:
    """Listens from the start; what comes while it is off, or under a reset, is closed with RST."""

    def __init__(self, told, target):
        self.told = {"enabled": True, **told}
        self.target = target
        self.toxics = []
        self.open = set()
        self.lock = threading.Lock()
        host, port = told["listen"].rsplit(":", 1)
        self.server = socket.create_server((host, int(port)))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.server.accept()
            if not self.told["enabled"]:
                reset(client)
                continue
            try:
                broker = socket.create_connection(self.target)
            except OSError:
                reset(client)
                continue
            with self.lock:
                self.open |= {client, broker}
            for source, sink, stream in ((client, broker, "upstream"), (broker, client, "downstream")):
                threading.Thread(target=self.pump, args=(source, sink, stream), daemon=True).start()

    def pump(self, source, sink, stream):
        try:
            while data := source.recv(1 << 16):
                for toxic in list(self.toxics):
                    if (toxic["stream"] or "downstream") != stream:
                        continue
                    if toxic["type"] == "reset_peer":
                        raise ConnectionResetError
                    if toxic["type"] == "latency":
                        time.sleep(toxic["attributes"]["latency"] / 1000)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            self.close(end)

    def close(self, end):
        with self.lock:
            known = end in self.open
            self.open.discard(end)
        if known:
            reset(end)

    def change(self, told):
        self.told["enabled"] = told.get("enabled", True)
        if not self.told["enabled"]:
            for end in list(self.open):
                self.close(end)

    def restore(self):
        self.toxics.clear()
        self.change({"enabled": True})


def reset(end):
    try:
        # Lingering for no time is a reset. A thread that reads it wakes by the shutdown.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()


def serve(target):
    """Starts to serve; returns the server, whose `shutdown` ends it, with its address in `server_address`."""
    proxies = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.split("/")[2]
            self.answer(200, proxies[name].told) if name in proxies else self.answer(404, {"error": "not found"})

        def do_POST(self):
            told = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            parts = self.path.strip("/").split("/")
            if parts == ["reset"]:
                for proxy in proxies.values():
                    proxy.restore()
                self.send_response(204)
                self.end_headers()
            elif parts == ["proxies"]:
                proxies[told["name"]] = Proxy(told, target)
                self.answer(201, told)
            elif parts[1] not in proxies:
                self.answer(404, {"error": "not found"})
            elif parts[2:] == ["toxics"]:
                proxies[parts[1]].toxics.append(told | {"stream": told.get("stream")})
                self.answer(200, told)
            else:
                proxies[parts[1]].change(told)
                self.answer(200, told)

        def answer(self, code, value):
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
