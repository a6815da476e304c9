const chat = { model: "any", stream: true, messages: [{ role: "user", content: "Hello" }] };

/** The text `preset.NAME` names and explains each. @type {{ name: string, values?: Record<string, string>, sample?: string, content?: object }[]} */
export const PRESETS = [
  { name: "tokens", values: {
    text: "A model writes its answer a token at a time, and a reader does not want to wait for the last one before reading the first.",
    count: "46", event: "token", interval: "60" } },
  { name: "characters", values: { text: "敏捷的棕色狐狸跳过了懒狗。", split: "char", interval: "300" } },
  { name: "mobile", values: { count: "40", interval: "250", heartbeat: "100", stall: "8", silence: "2000", cut: "16", retry: "1500" } },
  { name: "unavailable", values: { status: "503" } },
  { name: "silent", values: { count: "6", interval: "300", stall: "5", silence: "600000" } },
  { name: "nightmare", values: { interval: "200", lines: "3", chunk: "1", newline: "cr", bom: "on", garbage: "on" } },
  { name: "firehose", values: { count: "30000", interval: "1", size: "100" } },
  { name: "chat", sample: "samples/openai-chat", content: chat },
  { name: "named", sample: "samples/anthropic-message", content: chat },
  { name: "mcp", sample: "samples/mcp", content: { jsonrpc: "2.0", id: 1, method: "tools/list" } },
];

/**
 * Of each parameter: its name; the choices, the least and the most, or nothing for a text; and what it is without a value.
 * The text `lab.NAME` says what it does.
 */
export const PARAMETERS = {
  payload: [
    ["text", null, "The quick brown fox jumps over the lazy dog."], ["split", ["word", "char"]], ["data"], ["count", [1, 100000]],
    ["event", null, "message"], ["id", ["on", "off"]], ["size", [0, 4194304]], ["lines", [1, 1000], 1], ["binary", [0, 3145728]],
  ],
  timing: [
    ["interval", [0, 60000], 1000], ["jitter", [0, 100], 0], ["heartbeat", [10, 60000]], ["retry", [0, 600000], 2000],
    ["complete", ["204", "loop"]],
  ],
  bytes: [["chunk", [1, 65536]], ["newline", ["lf", "cr", "crlf"]], ["bom", ["off", "on"]]],
  faults: [
    ["cut", [1, 99999]], ["stall", [1, 100000]], ["silence", [1, 600000], 30000], ["garbage", ["off", "on"]],
    ["status", [200, 599], 200], ["type", null, "text/event-stream"], ["redirect", ["none", "301", "302", "303", "307", "308"]],
  ],
};
