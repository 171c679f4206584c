"""A real Kafka on this machine's loopback: started by the tests, ended by its process id."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from tests.servers import started

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "busline" / "kafka"
START = 60.0  # seconds a broker may take on a busy machine
TOOLS = {
    "acls": "org.apache.kafka.tools.AclCommand",
    "consume": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "produce": "org.apache.kafka.tools.ConsoleProducer",
    "topics": "org.apache.kafka.tools.TopicCommand",
}


class Kafka:
    """One node, broker and controller. Its data lives in `folder` and outlives a restart. `partitions`: of a topic that
    does not say."""

    def __init__(self, folder: Path, partitions: int = 3) -> None:
        self._folder, self._partitions = folder, partitions
        self._port, self._controller = free_ports(2)
        self._jars = jars()
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "broker.log"

    def __repr__(self) -> str:
        return f"<Kafka at {self.server}>"

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"kafka://{self.server}"

    def start(self) -> None:
        """Returns when it listens."""
        settings = self._settings()
        if not (self._folder / "data" / "meta.properties").exists():
            subprocess.run(
                self._java("kafka.tools.StorageTool", "format", "--cluster-id=AAAAAAAAAAAAAAAAAAAAAA", "-c", str(settings)),
                check=True,
                stdout=subprocess.DEVNULL,
            )
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._java("kafka.Kafka", str(settings)), stdout=log, stderr=log, start_new_session=True)
        self._listening()

    def stop(self) -> None:
        """Ends it in good order."""
        self.signal(signal.SIGTERM)
        self._ended()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._ended()

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def tool(self, name: str, *arguments: str, text: str = "", timeout: float = 60) -> str:
        """What one of Kafka's own tools prints."""
        command = self._java(TOOLS[name], "--bootstrap-server", self.server, *arguments)
        return subprocess.run(command, input=text, text=True, capture_output=True, check=True, timeout=timeout).stdout

    def _ended(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listening(self) -> None:
        assert self._process is not None
        end = time.monotonic() + START
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(0.5)
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"Kafka does not listen on {self.server}: its log is {self.log}")

    def _java(self, main: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={HERE / 'kafka-log4j2.properties'}"
        return ["java", "-Xmx512m", "-Xms64m", "-XX:+UseSerialGC", logging, "-cp", f"{self._jars}/*", main, *arguments]

    def _settings(self) -> Path:
        own, controller = f"PLAINTEXT://127.0.0.1:{self._port}", f"CONTROLLER://127.0.0.1:{self._controller}"
        lines = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"{own},{controller}",
            "advertised.listeners": own,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self._folder / "data",
            "num.partitions": self._partitions,
            "default.replication.factor": 1,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 2,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "auto.create.topics.enable": "false",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "log.retention.ms": -1,  # the simulated clock is many years behind
            "log.segment.delete.delay.ms": 0,
        }
        path = self._folder / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        return path


def jars() -> Path:
    """The folder with the broker's jars: fetched once, 54 MB."""
    started.check()
    missing = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if missing:
        raise RuntimeError(f"The Kafka tests need {' and '.join(missing)}: apt-get install -y default-jre-headless maven")
    if not any((CACHE / "libs").glob("kafka-tools-*.jar")):
        CACHE.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "pom.xml", CACHE / "pom.xml")
        fetch = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={CACHE / 'libs'}"]
        subprocess.run(fetch, cwd=CACHE, check=True)
    return CACHE / "libs"


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
