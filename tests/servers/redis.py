"""A real Redis on a free loopback port: started when a test asks for it, stopped by its pid."""

import asyncio
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import started


class Server:
    """One redis-server. `options` are its settings, as on its command line."""

    def __init__(self, folder: Path, port: int, **options: str) -> None:
        self.folder, self.port, self._options = folder, port, options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers."""
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendfsync": "always",
            **self._options,
        }
        words = [
            word
            for name, value in settings.items()
            for word in (f"--{name.replace('_', '-')}", *value.split(" "))
        ]
        self._process = subprocess.Popen(
            [binary(), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        limit = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < limit, "redis-server does not answer"
            time.sleep(0.005)

    def _answers(self) -> bool:
        try:
            return self.say("PING").startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def say(self, *words: str | bytes) -> bytes:
        """One command on a connection of its own; the raw answer, if it is short."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as wire:
            wire.sendall(b"*%d\r\n" % len(words) + b"".join(map(argument, words)))
            return wire.recv(65536)

    def say_as(self, password: str, *words: str) -> bytes:
        """As `say`, with a login."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as wire:
            for command in (("AUTH", password), words):
                wire.sendall(b"*%d\r\n" % len(command) + b"".join(map(argument, command)))
                answer = wire.recv(65536)
        return answer

    def kill(self) -> None:
        """SIGKILL, and waits."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


def argument(word: str | bytes) -> bytes:
    """One word of a command, on the wire."""
    raw = word if isinstance(word, bytes) else word.encode()
    return b"$%d\r\n%s\r\n" % (len(raw), raw)


def binary() -> str:
    started.check()
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    assert found is not None, "These tests need a server. Type: apt-get install redis-server"
    return found


def release() -> str:
    """The server's version."""
    said = subprocess.run(
        [binary(), "--version"], check=True, capture_output=True, text=True
    ).stdout
    return said.partition("v=")[2].split()[0]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def running(**options: str) -> Generator[Server]:
    """A server of one's own."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), free_port(), **options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def shared() -> Generator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def redis(shared: Server) -> Server:
    """The session's server, empty."""
    shared.say("FLUSHALL")
    return shared


class Wire:
    """A proxy in front of a server that can lose answers, cut connections and stand still."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._listening: asyncio.Server | None = None
        self.loses_answers_after: bytes | None = None
        self.lost = 0
        self.port = 0
        self.pause = 0.0  # seconds for each piece that passes
        self._forgotten = 0  # so many connections pass nothing more, and nobody is told
        self._count = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Wire":
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def cut(self) -> None:
        """Nobody gets through any more."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        self.drop()

    def forget(self) -> None:
        """As a firewall does with what is idle: the connections of now pass nothing more."""
        self._forgotten = self._count

    def drop(self) -> None:
        """Cuts what is connected now."""
        for pair in self._pairs:
            for writer in pair:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        pair = writer, their_writer
        self._pairs.add(pair)
        self._count += 1
        number = self._count
        doomed = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, their_writer, doomed, number))
                both.create_task(self._back(their_reader, writer, doomed, number))
        except* (OSError, EOFError):
            pass
        finally:
            self._pairs.discard(pair)
            for one in pair:
                one.close()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        doomed: asyncio.Event,
        number: int,
    ) -> None:
        while data := await reader.read(65536):
            if self.loses_answers_after is not None and self.loses_answers_after in data:
                self.loses_answers_after = None
                doomed.set()
            await self._pass(data, writer, number)
        raise EOFError

    async def _back(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        doomed: asyncio.Event,
        number: int,
    ) -> None:
        while data := await reader.read(65536):
            if doomed.is_set():
                self.lost += 1
                raise EOFError
            await self._pass(data, writer, number)
        raise EOFError

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter, number: int) -> None:
        if number <= self._forgotten:
            return
        if self.pause:
            await asyncio.sleep(self.pause)
        writer.write(data)
        await writer.drain()
