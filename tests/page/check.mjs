// The page as axe and html-validate see it: `check.mjs PATH-OF-NEWSWIRE`. Each section and panel, in each language, scheme
// and width. Then the page over TLS, below a path, behind nginx. It needs Chromium, ChromeDriver, nginx, openssl, and
// `npm ci` in this folder.

import axe from "axe-core";
import { HtmlValidate } from "html-validate";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const children = [], faults = new Set();
/** For the scripts in the page. */
const UNTIL = "const until = async (is) => { while (!is()) await new Promise((resolve) => setTimeout(resolve, 100)); };";

/** Starts a process, and returns what a line that it writes has. */
async function start(command, parameters, pattern) {
  const child = spawn(command, parameters, { stdio: ["ignore", "pipe", "ignore"] });
  children.push(child);
  const line = await new Promise((resolve, reject) => {
    child.on("error", reject).on("exit", () => reject(new Error(`${command} ended`)));
    createInterface({ input: child.stdout }).on("line", (text) => pattern.test(text) && resolve(text));
  });
  return pattern.exec(line)[1];
}

/** A command of WebDriver. */
async function ask(url, content) {
  const response = await fetch(url, { method: "POST", body: JSON.stringify(content) });
  const { value } = await response.json();
  if (value?.error) throw new Error(`${value.error}: ${value.message}`);
  return value;
}

/** A port that is free now. */
function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** nginx with TLS in front of a server, and the address of `/push/` there. */
function startProxy(server, port) {
  const file = (name) => join(folder, name), request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
  execFileSync("openssl", [...request, "-nodes", "-subj", "/CN=localhost", "-keyout", file("key"), "-out", file("certificate")], { stdio: "ignore" });
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${file(name)};`).join(" ");
  writeFileSync(file("nginx.conf"), `daemon off; pid ${file("pid")}; events {} http { access_log off; ${paths}
    server { listen 127.0.0.1:${port} ssl; ssl_certificate ${file("certificate")}; ssl_certificate_key ${file("key")};
      location /push/ { proxy_pass ${server}; } } }`);
  children.push(spawn("nginx", ["-p", folder, "-c", file("nginx.conf"), "-e", file("log")], { stdio: "ignore" }));
  return `https://127.0.0.1:${port}/push/`;
}

const folder = mkdtempSync(join(tmpdir(), "newswire-page-"));
try {
  const tlsPort = await freePort();
  const page = await start(process.argv[2],
    ["serve", "--publish-open", "--allow-origin", `https://127.0.0.1:${tlsPort}`, "--listen", "127.0.0.1:0"], /listens on (\S+)/);
  const port = await start("chromedriver", ["--port=0"], /successfully on port (\d+)/);
  const args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors", `--user-data-dir=${join(folder, "profile")}`];
  const capabilities = { alwaysMatch: { timeouts: { script: 60000 }, "goog:chromeOptions": { args } } };
  const { sessionId } = await ask(`http://127.0.0.1:${port}/session`, { capabilities });
  const session = `http://127.0.0.1:${port}/session/${sessionId}`;
  const run = (script, ...given) => ask(`${session}/execute/async`,
    { script: `const done = arguments[arguments.length - 1]; (async (given) => { ${script} })(arguments[0]).then(done, (e) => done(String(e)))`, args: given });
  const devtools = (cmd, params) => ask(`${session}/goog/cdp/execute`, { cmd, params });

  const extending = (rules) => new HtmlValidate({ extends: ["html-validate:recommended"], rules });
  const ofFiles = extending({});
  // A browser writes empty attributes in its own way. A script sets the height of the log, whose rows no <select> can show.
  const ofDocuments = extending({ "attribute-boolean-style": "off", "attribute-empty-style": "off", "no-inline-style": "off",
    "prefer-native-element": ["error", { exclude: ["listbox"] }], "no-trailing-whitespace": "off" });
  async function validate(name, html, rules = ofFiles) {
    const { results } = await rules.validateString(html);
    for (const { messages } of results) for (const { ruleId, message, line } of messages) faults.add(`${name}, line ${line}: ${ruleId}: ${message}`);
  }
  for (const path of ["", "samples/"]) await validate(`/${path}`, await (await fetch(page + path)).text());

  for (const language of ["en", "zh"]) {
    await ask(`${session}/url`, { url: `${page}?language=${language}` });
    // A stream with JSON and a fault, its bytes, the row of an event, and what the check finds of it.
    await run(`${UNTIL}
      await until(() => "isReady" in document.body.dataset);
      for (const details of document.querySelectorAll("details")) details.open = true;
      document.querySelector("#bar-url").value = "lab?interval=50&id=off&data=%7B%22a%22:[1,%22b%22]%7D";
      document.querySelector("#bar-read").click();
      await until(() => document.querySelector("#log .event"));
      document.querySelector("#log .event").click();
      document.querySelector("#publish .main").click();
      document.querySelector("#check-run").click();
      await until(() => document.querySelector("#check-table").checkVisibility());`);
    await validate(`the document in ${language}`, await run("return `<!DOCTYPE html>\\n${document.documentElement.outerHTML}`"), ofDocuments);
    await run(axe.source);
    for (const [scheme, width] of [["light", 320], ["light", 1280], ["dark", 1280]]) {
      const features = [{ name: "prefers-color-scheme", value: scheme }, { name: "prefers-reduced-motion", value: "reduce" }];
      await devtools("Emulation.setEmulatedMedia", { features });
      await devtools("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: false });
      for (const panel of ["lab", "channel", "write"]) {
        const found = await run(`document.getElementById(given + "-tab").click();
          return (await axe.run()).violations.flatMap(({ id, help, nodes }) => nodes.map(({ html }) => id + ": " + help + ": " + html.slice(0, 200)))`, panel);
        for (const fault of [found].flat()) faults.add(fault);
      }
    }
  }

  await ask(`${session}/url`, { url: startProxy(page, tlsPort) });
  const heard = await run(`${UNTIL}
    await until(() => "isReady" in document.body.dataset);
    await until(() => document.querySelectorAll("#words-wire .event").length === 9);
    document.querySelector("#channel-join").click();
    await until(() => document.querySelector("#log .open"));
    document.querySelector("#publish .main").click();
    await until(() => document.querySelector("#log .event"));
    return document.querySelector("#log .event .data").textContent`);
  if (heard !== "Hello") faults.add(`over TLS: ${heard}`);
  await fetch(session, { method: "DELETE" });
} finally {
  for (const child of children) child.removeAllListeners("exit").kill();
  rmSync(folder, { recursive: true, force: true, maxRetries: 9 });
}
console.log([...faults, `axe and html-validate: ${faults.size} faults`].join("\n"));
process.exitCode = faults.size > 0 ? 1 : 0;
