#!/usr/bin/env python3
"""Real clients of PyPI and npm against a real newswire: `run.py [PATH-OF-NEWSWIRE]`.

Each client must report exactly the events that were published: in order, once, with the right type, data and id, and
no message for a heartbeat or for the opening of a stream. README.md has the table of the clients.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import zip_longest
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = [HERE / ".venv/bin/python", HERE / "clients.py"]
NODE = ["node", HERE / "clients.mjs"]

# Of channels with names that begin so, only this key may do anything.
PRIVATE = "private-"
KEY = "compat-0123456789abcdef"

# For whatever must happen; two busy cores may need long.
DEADLINE_SECONDS = 60
HEARTBEAT_SECONDS = 1
# Two heartbeats, and a part of a third interval.
IDLE_SECONDS = 2.5
CLIENTS_AT_A_TIME = 12

FOX = "The quick brown fox jumps over the lazy dog.".split()
PUBLISHED = [
    ("message", "plain"),
    ("message", "one\ntwo\n\nfour"),
    ("weather", "a named event"),
    ("message", ""),
    ("message", " a leading space"),
    ("message", "Grüße, 世界, 🌍"),
    ("message", '{"key": "value: 1", "list": [1, 2]}'),
]


class Client:
    """A package. `ids` is false when it reports no ids; `data` does what it does to the data beyond the standard."""

    def __init__(self, name, command, reconnects=False, ids=True, data=lambda data: data):
        self.name, self.command, self.reconnects, self.ids, self.data = name, command, reconnects, ids, data

    def expects(self, event):
        kind, data, id = event
        return (kind, self.data(data), id if self.ids else None)

    @staticmethod
    def reports(event):
        kind, data, id = event
        # An event of the server itself has no id: some clients report the last one, some none. And some make a number
        # of an id of digits.
        return (kind, data, None if id is None or kind == "end" else str(id))

    def start(self, url, last_event_id=None):
        """`url` is that of a channel."""
        return Process([*self.command, self.name, url, *([last_event_id] if last_event_id else [])])


CLIENTS = [
    Client("httpx-sse", PYTHON),
    Client("niquests", PYTHON),
    Client("sseclient-py", PYTHON),
    Client("aiohttp-sse-client", PYTHON, reconnects=True, data=lambda data: data.lstrip(" ")),
    Client("aiosseclient", PYTHON),
    Client("openai", PYTHON),
    Client("anthropic", PYTHON),
    Client("eventsource", NODE, reconnects=True),
    Client("extended-eventsource", NODE, reconnects=True),
    Client("event-source-polyfill", NODE, reconnects=True),
    Client("eventsource-client", NODE, reconnects=True),
    Client("eventsource-parser", NODE),
    Client("@microsoft/fetch-event-source", NODE, reconnects=True),
    Client("@sentool/fetch-event-source", NODE, data=lambda data: data.split("\n")[-1].strip()),
    Client("fetch-event-stream", NODE, data=lambda data: data.lstrip()),
    Client("openai (npm)", NODE, ids=False),
    Client("@anthropic-ai/sdk", NODE, ids=False),
]


class Page(Client):
    """A package in a page in Chromium, with a key in a cookie."""

    def __init__(self, name):
        super().__init__(name, None, reconnects=True)

    def start(self, url, last_event_id=None):
        return Chromium(self.name, url)


PAGES = [Page("EventSource"), Page("event-source-polyfill"), Page("eventsource"), Page("@microsoft/fetch-event-source")]


class Process:
    """A running client. It is killed at the deadline, and a reader of its output then sees the end."""

    def __init__(self, command):
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.errors = tempfile.TemporaryFile("w+")
        self.child = subprocess.Popen(
            command, cwd=HERE, env=environment, stdout=subprocess.PIPE, stderr=self.errors, encoding="utf-8"
        )
        self.deadline = threading.Timer(DEADLINE_SECONDS, self.child.kill)
        self.deadline.start()

    def next(self, count):
        seen = events("".join(self.child.stdout.readline() for _ in range(count)))
        if len(seen) < count:
            raise Failure(f"it ended after {seen}: {self.fault()}")
        return seen

    def rest(self):
        """All that it reports until it ends by itself."""
        seen = events(self.child.stdout.read())
        if fault := self.fault():
            raise Failure(f"it ended after {seen[-3:]}: {fault}")
        return seen

    def fault(self):
        code = self.child.wait()
        self.errors.seek(0)
        return f"exit code {code}: {self.errors.read()[-2000:]}" if code else ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.deadline.cancel()
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()
        self.errors.close()


class Chromium:
    """A client in a page, which publishes what it reports on a channel of its own."""

    def __init__(self, name, url):
        self.server, channel = url.split("/channels/")
        self.said, self.taken = f"said-{channel}", 0
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        query = "&".join(urllib.parse.quote(word, "") for word in [name, channel, self.said, KEY])
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={self.profile.name}"]
        self.child = subprocess.Popen(
            ["chromium", *flags, f"{self.server}/page.html?{query}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        without = self.next(1)
        if without != [("without a key", "401", None)]:
            raise Failure(f"the channel is not private: {without}")

    def next(self, count):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(seen := self.report()[self.taken :]) < count:
            if time.monotonic() > deadline:
                raise Failure(f"it reported {seen} within {DEADLINE_SECONDS} s, and should report {count} events")
            time.sleep(0.1)
        self.taken += count
        return seen[:count]

    def rest(self):
        """All that it reports until the end, and a second longer."""
        seen = []
        while not seen or seen[-1][0] != "end":
            seen += self.next(1)
        time.sleep(1)
        return seen + self.report()[self.taken :]

    def report(self):
        said = json.loads(request(f"{self.server}/channels/{self.said}?poll", accept="application/json"))
        return events("\n".join(event["data"] for event in said["events"]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()
        self.profile.cleanup()


class Failure(Exception):
    pass


def request(url, method="GET", content=None, accept="*/*"):
    data = None if content is None else content.encode()
    fields = {"Content-Type": "text/plain", "Authorization": f"Bearer {KEY}", "Accept": accept}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, fields, method=method), timeout=DEADLINE_SECONDS) as response:
        return response.read().decode()


def events(lines):
    said = [json.loads(line) for line in lines.splitlines()]
    return [(event["type"], event.get("data"), event.get("id")) for event in said]


def expect(client, seen, expected):
    seen, expected = [client.reports(event) for event in seen], [client.expects(event) for event in expected]
    for number, (one, other) in enumerate(zip_longest(seen, expected), 1):
        if one != other:
            counts = f"{len(seen)} events instead of {len(expected)}"
            raise Failure(f"event {number} is {one} and should be {other}; {counts}")


class Server:
    """A newswire on a free port."""

    def __init__(self, path):
        arguments = ["serve", "--listen", "127.0.0.1:0", "--publish-open", "--heartbeat", str(HEARTBEAT_SECONDS)]
        self.keys = tempfile.NamedTemporaryFile("w", suffix=".keys")
        self.keys.write(f"{KEY} allow all {PRIVATE}*\n")
        self.keys.flush()
        arguments += ["--www", HERE, "--access", self.keys.name, "--quiet"]
        self.child = subprocess.Popen([path, *arguments], stdout=subprocess.PIPE, encoding="utf-8")
        greeting = next((line for line in self.child.stdout if "http://127.0.0.1:" in line), None)
        if greeting is None:
            sys.exit(f"compat: {path} did not say where it listens")
        self.port = int(greeting.split("http://127.0.0.1:")[1].split("/")[0])
        self.url = f"http://127.0.0.1:{self.port}"

    def publish(self, channel, kind, data):
        """The event as a client must report it."""
        query = "" if kind == "message" else f"?event={kind}"
        return (kind, data, json.loads(request(f"{self.url}/channels/{channel}{query}", "POST", data))["id"])

    def complete(self, channel):
        request(f"{self.url}/channels/{channel}", "DELETE")
        return ("end", "the channel is completed", None)

    def wait_for_subscriber(self, channel):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            channels = json.loads(request(f"{self.url}/channels"))
            if any(each["name"] == channel and each["subscribers"] == 1 for each in channels):
                return
            time.sleep(0.05)
        raise Failure(f"it did not subscribe within {DEADLINE_SECONDS} s")


class Relay:
    """A TCP relay to the server that can cut its connections."""

    def __init__(self, port):
        self.port, self.sockets = port, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client = self.listener.accept()[0]
            server = socket.create_connection(("127.0.0.1", self.port))
            self.sockets += [client, server]
            for source, target in [(client, server), (server, client)]:
                threading.Thread(target=self.copy, args=(source, target), daemon=True).start()

    @staticmethod
    def copy(source, target):
        with suppress(OSError):
            while some := source.recv(65536):
                target.sendall(some)
            target.shutdown(socket.SHUT_WR)

    def cut(self):
        while self.sockets:
            with suppress(OSError):
                self.sockets.pop().shutdown(socket.SHUT_RDWR)


def publishes(client, server, channel):
    with client.start(f"{server.url}/channels/{channel}") as process:
        server.wait_for_subscriber(channel)
        time.sleep(IDLE_SECONDS)
        expected = [server.publish(channel, *event) for event in PUBLISHED]
        seen = process.next(len(expected))
        time.sleep(IDLE_SECONDS)
        expected.append(server.complete(channel))
        expect(client, seen + process.rest(), expected)


def streams(path, words):
    def case(client, server, _channel):
        with client.start(server.url + path) as process:
            expect(client, process.rest(), [("message", word, str(id)) for id, word in enumerate(words, 1)])

    return case


def resumes(client, server, channel):
    def publish(*words):
        return [server.publish(channel, "message", word) for word in words]

    relay = Relay(server.port)
    url = f"{relay.url}/channels/{channel}"
    with ExitStack() as stack:
        process = stack.enter_context(client.start(url))
        server.wait_for_subscriber(channel)
        expected = publish("before", "it left")
        seen = process.next(2)
        relay.cut()
        expected += publish("while it", "was away")
        if not client.reconnects:
            # The caller of a client that reports no ids has the id from elsewhere.
            last_event_id = seen[-1][2] if client.ids else expected[1][2]
            process = stack.enter_context(client.start(url, last_event_id))
        seen += process.next(2)
        expected += publish("after it came back") + [server.complete(channel)]
        expect(client, seen + process.rest(), expected)


CASES = {
    "hears what is published, and nothing else": publishes,
    "hears the nine words": streams("/sse/mvc/words", FOX),
    "takes no heartbeat of the laboratory for an event": streams("/lab?count=5&interval=300&heartbeat=50", FOX[:5]),
    "comes back, and nothing is lost or repeated": resumes,
}


def answers(path, expected):
    def case(client, server, _channel):
        with client.start(server.url + path) as process:
            expect(client, process.rest(), expected)

    return case


def text(reason):
    pieces = [f"{word} " for word in FOX[:-1]] + FOX[-1:]
    return [("text", piece, None) for piece in pieces] + [("over", reason, None)]


def resumes_privately(client, server, channel):
    resumes(client, server, PRIVATE + channel)


# Files under `played/` that answer calls of the SDKs.
PLAYED = [
    (("hears a played chat", answers("/played", text("stop"))), Client("openai-chat", PYTHON)),
    (("hears a played chat", answers("/played", text("stop"))), Client("openai (npm) chat", NODE)),
    (("hears a played chat", answers("/played", text("stop"))), Client("@microsoft/fetch-event-source chat", NODE)),
    (("is refused by a played file", answers("/played/busy", [("refused", "3", None)])), Client("openai-chat", PYTHON)),
    (("hears a played message", answers("/played", text("end_turn"))), Client("anthropic-messages", PYTHON)),
    (("hears a played message", answers("/played", text("end_turn"))), Client("@anthropic-ai/sdk messages", NODE)),
]


def heartbeats_are_sent(server):
    """Without heartbeats, the cases would prove nothing."""
    with socket.create_connection(("127.0.0.1", server.port)) as stream:
        stream.sendall(b"GET /channels/idle HTTP/1.0\r\n\r\n")
        stream.settimeout(DEADLINE_SECONDS)
        seen = b""
        while seen.split(b"\n").count(b":") < 2:
            some = stream.recv(65536)
            if not some:
                raise Failure(f"the stream ended after {seen}")
            seen += some


def install():
    missing = [tool for tool in ["node", "npm", "chromium"] if shutil.which(tool) is None]
    if missing:
        sys.exit(f"compat: install Node.js, npm and Chromium first; not found: {', '.join(missing)}")
    # niquests brings a fork of urllib3. Without this variable the fork replaces urllib3 for requests, too.
    environment = {**os.environ, "URLLIB3_NO_OVERRIDE": "1"}
    for command in [
        ["python3", "-m", "venv", ".venv"],
        [".venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"],
        ["npm", "ci", "--silent", "--no-audit", "--no-fund"],
    ]:
        subprocess.run(command, cwd=HERE, env=environment, check=True)


def main():
    newswire = Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "../../target/newswire").resolve()
    install()
    server = Server(newswire)

    def run(job):
        number, (promise, case), client = job
        title = f"{client.name} {promise}"
        try:
            case(client, server, f"compat-{number}")
        except Exception as failure:
            return f"FAIL  {title}: {failure}"
        return f"ok    {title}"

    try:
        heartbeats_are_sent(server)
        pairs = [(case, client) for case in CASES.items() for client in CLIENTS] + PLAYED
        promise = "comes back in Chromium to a private channel, and nothing is lost or repeated"
        pairs += [((promise, resumes_privately), client) for client in PAGES]
        jobs = [(number, *pair) for number, pair in enumerate(pairs)]
        with ThreadPoolExecutor(CLIENTS_AT_A_TIME) as pool:
            lines = []
            for line in pool.map(run, jobs):
                print(line, flush=True)
                lines.append(line)
    finally:
        server.child.kill()
        server.child.wait()
    failed = sum(line.startswith("FAIL") for line in lines)
    print(f"{len(lines) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
