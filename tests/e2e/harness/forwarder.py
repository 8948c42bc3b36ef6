"""A TCP forwarder that stands between the router and a server, to see how a connection begins and to cut it like a failing network."""

import contextlib
import socket
import struct
import threading


class Forwarder:
    def __init__(self, target_port, *, host="127.0.0.1", port=0):
        self._target = target_port
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(64)
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs = []
        self.beginnings = []  # the first bytes each connection sent
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        # shutdown wakes the accept; close alone would not
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.sever()

    def sever(self):
        """Resets every connection on both sides, as a dying host or a firewall does."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
                    end.close()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((near, far))
                number = len(self.beginnings)
                self.beginnings.append(b"")
            threading.Thread(target=self._copy, args=(near, far, number), daemon=True).start()
            threading.Thread(target=self._copy, args=(far, near, None), daemon=True).start()

    def _copy(self, source, sink, number):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if number is not None and len(self.beginnings[number]) < 64:
                    self.beginnings[number] += data[:64]
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
