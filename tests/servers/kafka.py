"""A real Kafka on this machine's loopback, of one node or several: started by the tests, ended by
their process ids."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient

from tests.servers import started

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "busline" / "kafka"
CLUSTER = "AAAAAAAAAAAAAAAAAAAAAA"
START = 150.0  # seconds a broker may take on a busy machine
TOOLS = {
    "acls": "org.apache.kafka.tools.AclCommand",
    "consume": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "produce": "org.apache.kafka.tools.ConsoleProducer",
    "quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "topics": "org.apache.kafka.tools.TopicCommand",
}


class Node:
    """One broker that is a controller as well. Its data lives in `folder` and outlives a
    restart."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.port, self.controller = free_ports(2)
        self.log = folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def voter(self) -> str:
        return f"{self.number}@127.0.0.1:{self.controller}"

    def prepare(self, settings: Mapping[str, object]) -> None:
        """Writes what it is told, and gives it a name if it has none: what Kafka's own tool writes,
        without a JVM."""
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        write(self._properties, {**settings, **self._own()})
        meta = data / "meta.properties"
        if not meta.exists():
            directory = urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
            write(
                meta,
                {
                    "version": 1,
                    "cluster.id": CLUSTER,
                    "node.id": self.number,
                    "directory.id": directory,
                },
            )

    def begin(self, options: Sequence[str] = ()) -> None:
        """Starts it. `listening` waits for it."""
        words = java("kafka.Kafka", str(self._properties), options=options)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)

    def listening(self) -> None:
        """Returns when it does."""
        assert self._process is not None
        end = time.monotonic() + START
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(0.5)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"Kafka does not listen on {self.server}: its log is {self.log}")

    def signal(self, number: int) -> None:
        """Returns when a node that is told to stand still does, with all its threads."""
        assert self._process is not None
        os.kill(self._process.pid, number)
        while number == signal.SIGSTOP and not stands_still(self._process.pid):
            time.sleep(0.005)

    def ended(self) -> None:
        """Waits for its end; one that does not end is killed."""
        assert self._process is not None
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ends it in good order."""
        self.signal(signal.SIGTERM)
        self.ended()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.ended()

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _own(self) -> dict[str, object]:
        return {
            "node.id": self.number,
            "listeners": f"PLAINTEXT://{self.server},CONTROLLER://127.0.0.1:{self.controller}",
            "advertised.listeners": f"PLAINTEXT://{self.server}",
            "log.dirs": self.folder / "data",
        }


class Kafka:
    """A cluster of so many nodes. Its data lives in `folder` and outlives a restart. `partitions`:
    of a topic that does not say. `options`: the JVM's."""

    def __init__(
        self, folder: Path, partitions: int = 3, nodes: int = 1, options: Sequence[str] = ()
    ) -> None:
        self._partitions, self._options = partitions, options
        self.nodes = [Node(folder / f"node{number}", number) for number in range(1, nodes + 1)]

    def __repr__(self) -> str:
        return f"<Kafka at {self.server}>"

    @property
    def server(self) -> str:
        return ",".join(node.server for node in self.nodes)

    @property
    def url(self) -> str:
        return f"kafka://{self.server}"

    def start(self) -> None:
        """Returns when every node listens."""
        for node in self.nodes:
            node.prepare(self._settings())
            node.begin(self._options)
        for node in self.nodes:
            node.listening()

    def stop(self) -> None:
        """Ends it in good order."""
        self.signal(signal.SIGTERM)
        for node in self.nodes:
            node.ended()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def signal(self, number: int) -> None:
        for node in self.nodes:
            node.signal(number)

    def tool(self, name: str, *arguments: str, text: str = "", timeout: float = 60) -> str:
        """What one of Kafka's own tools prints."""
        command = java(TOOLS[name], "--bootstrap-server", self.server, *arguments)
        return subprocess.run(
            command, input=text, text=True, capture_output=True, check=True, timeout=timeout
        ).stdout

    def _settings(self) -> dict[str, object]:
        copies = min(3, len(self.nodes))
        enough = max(1, copies - 1)
        # nodes ask each other before rights are known
        several = {"super.users": "User:ANONYMOUS"} if len(self.nodes) > 1 else {}
        return {
            "process.roles": "broker,controller",
            "controller.quorum.voters": ",".join(node.voter for node in self.nodes),
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "num.partitions": self._partitions,
            "default.replication.factor": copies,
            "min.insync.replicas": enough,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": enough,
            "transaction.state.log.num.partitions": 2,
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": enough,
            "group.initial.rebalance.delay.ms": 0,
            "broker.session.timeout.ms": 3000,  # a node that died is given up after these
            "broker.heartbeat.interval.ms": 500,
            "group.min.session.timeout.ms": 1000,
            "auto.create.topics.enable": "false",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "log.retention.ms": -1,  # the simulated clock is many years behind
            "log.segment.delete.delay.ms": 0,
            **several,
        }


def stands_still(pid: int) -> bool:
    states = [one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(one.rpartition(")")[2].split()[0] in "TtZ" for one in states)


def write(path: Path, settings: Mapping[str, object]) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


def java(main: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
    """The words that run one of Kafka's programs."""
    logging = f"-Dlog4j2.configurationFile={HERE / 'kafka-log4j2.properties'}"
    return [
        "java",
        "-Xmx512m",
        "-Xms64m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xlog:disable",  # what it says of an archive that is not its own
        *(options or [f"-XX:SharedArchiveFile={archive()}"]),
        logging,
        "-cp",
        f"{jars()}/*",
        main,
        *arguments,
    ]


def jars() -> Path:
    """The folder with the broker's jars: fetched once, 54 MB."""
    started.check()
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if missing:
        raise RuntimeError(
            f"The Kafka tests need {' and '.join(missing)}: apt-get install -y default-jre-headless"
            " maven"
        )
    libs = CACHE / "libs"
    with once(CACHE):
        if not any(libs.glob("kafka-tools-*.jar")):
            fetch(libs)
    return libs


def fetch(libs: Path) -> None:
    shutil.copy(HERE / "pom.xml", CACHE / "pom.xml")
    words = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]
    subprocess.run([*words, f"-DoutputDirectory={libs}"], cwd=CACHE, check=True)


@cache
def archive() -> Path:
    """The classes of a broker as the JVM wants them in memory, which halves its start: written once
    for each JVM, by a broker that ends. Where it is not written, or is another's, a JVM does
    without."""
    jvm = Path(shutil.which("java") or "").resolve()
    path = CACHE / f"classes-{jvm.stat().st_mtime_ns}.jsa"
    with once(path), tempfile.TemporaryDirectory(dir=CACHE) as folder:
        if not path.exists():
            written = Path(folder) / path.name
            broker = Kafka(Path(folder), options=[f"-XX:ArchiveClassesAtExit={written}"])
            broker.start()
            broker.stop()
            if written.exists():
                written.rename(path)
    return path


@contextmanager
def once(path: Path) -> Iterator[None]:
    """No other process is within meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def release() -> str:
    """The broker's version."""
    (jar,) = jars().glob("kafka_2.13-*.jar")
    return jar.stem.partition("-")[2]


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


async def no_topics(*servers: str) -> None:
    """Deletes what the tests before have left."""
    admin = AIOKafkaAdminClient(bootstrap_servers=list(servers))
    await admin.start()
    names = [name for name in await admin.list_topics() if not name.startswith("__")]
    if names:
        await admin.delete_topics(names)
    await admin.close()
