#!/usr/bin/env python3
"""The page in three engines: `run.py [PATH-OF-NEWSWIRE]`.

`tests/it/page*.rs` tests every line of the page in Chromium. Here Chromium (Blink), Firefox (Gecko) and WebKitGTK do what a
visitor does first, also behind nginx with TLS and under a path. README.md says what must be installed.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from glob import glob
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"

# For whatever must happen; two busy cores may need long.
DEADLINE_SECONDS = 90

WORDS = "The quick brown fox jumps over the lazy dog.".split()
HISTORY_EVENTS = 5


def engines():
    """A function for each engine, which starts it. Selenium is installed by then."""
    from selenium import webdriver

    def chromium():
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"]:
            options.add_argument(argument)
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        return webdriver.Chrome(with_own_certificates(options), service)

    def firefox():
        options = webdriver.FirefoxOptions()
        options.binary_location = shutil.which("firefox-esr")
        options.add_argument("-headless")
        service = webdriver.FirefoxService(executable_path=str(HERE / ".cargo/bin/geckodriver"))
        return webdriver.Firefox(with_own_certificates(options), service)

    def webkit():
        options = webdriver.WebKitGTKOptions()
        [options.binary_location] = glob("/usr/lib/*/webkit2gtk-4.1/MiniBrowser")
        options.add_argument("--automation")
        service = webdriver.WebKitGTKService(executable_path=shutil.which("WebKitWebDriver"))
        return webdriver.WebKitGTK(options=with_own_certificates(options), service=service)

    return [chromium, firefox, webkit]


def with_own_certificates(options):
    options.set_capability("acceptInsecureCerts", True)
    return options


class Page:
    """The page in a browser, at an address of a server."""

    def __init__(self, browser, url):
        self.browser, self.url = browser, url

    def open(self):
        # A first visit, also when only the fragment would differ.
        self.browser.get("about:blank")
        self.browser.get(self.url)
        self.wait("'isReady' in document.body.dataset")

    def run(self, script, *given):
        return self.browser.execute_script(script, *given)

    def wait(self, condition):
        from selenium.webdriver.support.wait import WebDriverWait

        wait = WebDriverWait(self.browser, DEADLINE_SECONDS, poll_frequency=0.1)
        wait.until(lambda _: self.run(f"return !!({condition})"), f"not true: {condition}")

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def click(self, selector):
        self.run("document.querySelector(arguments[0]).click()", selector)

    def fill(self, selector, text):
        self.run(
            """const field = document.querySelector(arguments[0]);
               field.value = arguments[1];
               field.dispatchEvent(new Event("input", { bubbles: true }))""",
            selector,
            text,
        )

    def choose(self, selector, value):
        self.run(
            """const select = document.querySelector(arguments[0]);
               select.value = arguments[1];
               select.dispatchEvent(new Event("change", { bubbles: true }))""",
            selector,
            value,
        )

    def wait_for_state(self, pattern):
        self.wait(f"/{pattern}/.test(document.querySelector('#read-state').textContent)")

    def wait_for_row(self, pattern):
        """A row of the log: its kind, and then its cells."""
        self.wait(
            f"""[...document.querySelectorAll('#log [role=option]:not([hidden])')].some((row) =>
                /{pattern}/.test([row.className, ...[...row.children].map((cell) => cell.textContent)].join('|')))"""
        )


def hears_the_words(page, _server):
    page.open()
    page.wait("document.querySelector('#words-state').textContent === 'done (2)'")
    words = page.run("return [...document.querySelectorAll('.word')].map((word) => word.textContent)")
    assert words == WORDS, words
    assert page.text("#words-id") == "9"


def comes_back_after_a_cut(page, _server):
    page.open()
    page.click("#words-slower")
    page.wait(
        """document.querySelector('#words-state').textContent === 'open (1)'
           && document.querySelectorAll('.word').length >= 2"""
    )
    page.click("#words-cut")
    page.wait("document.querySelector('.seam')")
    page.click("#words-faster")
    page.click("#words-faster")
    page.wait("document.querySelectorAll('.word').length === 9")
    words = page.run("return [...document.querySelectorAll('.word')].map((word) => word.textContent)")
    assert words == WORDS, words


def reads_any_stream_in_both_ways(page, _server):
    page.open()
    for reader in ["fetch", "eventsource"]:
        page.fill("#bar-as", reader)
        # EventSource gives a page only the types that the page names.
        page.fill("#bar-types", "letter")
        page.fill("#bar-url", page.url + "lab?text=a+b+c&interval=100&cut=2&retry=100&event=letter")
        page.click("#bar-read")
        page.wait_for_row("event.*letter.*c$")
        page.wait_for_state("^done")
        assert page.text("#read-events") == "3", reader
        page.fill("#bar-url", page.url + "lab?status=503")
        page.click("#bar-read")
        page.wait_for_row("gaveUp.*503")


def publishes_and_is_told_of_a_gap(page, server):
    page.open()
    page.click("#channel-tab")
    page.fill("#channel-name", "news")
    page.click("#channel-join")
    page.wait_for_state("^open")
    page.fill("#channel-text", "extra, extra\non two lines")
    page.fill("#channel-type", "weather")
    page.click("#publish .main")
    page.wait_for_row("weather.*extra, extra ↵ on two lines")
    page.click("#channel-join")
    page.wait_for_state("^let go")
    for number in range(HISTORY_EVENTS + 2):
        server.publish("news", f"edition {number}")
    page.click("#channel-join")
    page.wait_for_row("gap\\\\|")
    page.wait_for_row(f"edition {HISTORY_EVENTS + 1}")


def speaks_chinese(page, _server):
    page.open()
    english = page.text("#words-title")
    page.choose("#language", "zh")
    page.wait("document.documentElement.lang.startsWith('zh') && 'isReady' in document.body.dataset")
    assert page.text("#words-title") != english
    page.choose("#language", "en")
    page.wait("document.documentElement.lang === 'en' && 'isReady' in document.body.dataset")
    assert page.text("#words-title") == english


def hears_the_words_over_tls_and_under_a_path(page, server):
    with server.behind_nginx() as url:
        hears_the_words(Page(page.browser, url), server)
        reads_any_stream_in_both_ways(Page(page.browser, url), server)


CASES = [
    hears_the_words,
    comes_back_after_a_cut,
    reads_any_stream_in_both_ways,
    publishes_and_is_told_of_a_gap,
    speaks_chinese,
    hears_the_words_over_tls_and_under_a_path,
]


class Server:
    """A newswire on a free port."""

    def __init__(self, path):
        arguments = ["--listen", "127.0.0.1:0", "--publish-open", "--history-events", str(HISTORY_EVENTS), "--quiet"]
        self.child = subprocess.Popen([path, *arguments], stdout=subprocess.PIPE, encoding="utf-8")
        greeting = next((line for line in self.child.stdout if "http://127.0.0.1:" in line), None)
        if greeting is None:
            sys.exit(f"engines: {path} did not say where it listens")
        self.port = int(greeting.split("http://127.0.0.1:")[1].split("/")[0])
        self.url = f"http://127.0.0.1:{self.port}/"

    def publish(self, channel, data):
        request = urllib.request.Request(f"{self.url}channels/{channel}", data.encode(), {"Content-Type": "text/plain"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=DEADLINE_SECONDS) as response:
            return json.load(response)["id"]

    @contextmanager
    def behind_nginx(self):
        """The address of an nginx with its default settings, a certificate of its own, and this server at `/push/`."""
        with tempfile.TemporaryDirectory() as directory:
            directory = Path(directory)
            request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
            files = ["-keyout", directory / "key.pem", "-out", directory / "certificate.pem"]
            subprocess.run([*request, *files], check=True, stderr=subprocess.DEVNULL)
            port = free_port()
            configuration = directory / "nginx.conf"
            configuration.write_text(NGINX.format(directory=directory, port=port, server=self.port))
            child = subprocess.Popen(["nginx", "-c", configuration], stderr=subprocess.DEVNULL)
            try:
                wait_until_it_listens(port)
                yield f"https://localhost:{port}/push/"
            finally:
                child.terminate()
                child.wait()


NGINX = """
daemon off; pid {directory}/pid; error_log {directory}/error.log; user root;
events {{ }}
http {{
    access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {directory}/certificate.pem; ssl_certificate_key {directory}/key.pem;
        location /push/ {{ proxy_pass http://127.0.0.1:{server}/; }}
    }}
}}
"""


def wait_until_it_listens(port):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise TimeoutError("nginx does not listen")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def install():
    """Selenium and geckodriver into this directory. Then this program again, with them."""
    tools = ["chromium", "chromedriver", "firefox-esr", "WebKitWebDriver", "nginx", "openssl", "xvfb-run", "cargo"]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        sys.exit(f"engines: not found: {', '.join(missing)}; see tests/engines/README.md")
    pip = [VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt"]
    # Debian has no package of it.
    geckodriver = ["cargo", "install", "--quiet", "--locked", "--debug", "--root", HERE / ".cargo", "geckodriver@0.37.1"]
    for command in [["python3", "-m", "venv", VENV], pip, geckodriver]:
        subprocess.run(command, check=True)
    # WebKitGTK has no headless mode, and its sandbox needs user namespaces, which a container may not have.
    environment = {**os.environ, "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1"}
    os.execvpe("xvfb-run", ["xvfb-run", "-a", VENV / "bin/python", *sys.argv], environment)


def main():
    if Path(sys.prefix) != VENV:
        install()
    newswire = Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "../../target/newswire").resolve()
    failed = 0
    server = Server(newswire)
    with ExitStack() as stack:
        stack.callback(server.child.kill)
        for start in engines():
            browser = start()
            with ExitStack() as session:
                session.callback(browser.quit)
                for case in CASES:
                    title = f"{start.__name__} {browser.capabilities['browserVersion']} {case.__name__.replace('_', ' ')}"
                    try:
                        case(Page(browser, server.url), server)
                        print(f"ok    {title}", flush=True)
                    except Exception as failure:
                        failed += 1
                        print(f"FAIL  {title}: {failure}", flush=True)
    print(f"{failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
