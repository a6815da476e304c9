// One JavaScript client of an event stream: `clients.mjs NAME URL [LAST-EVENT-ID]`.
//
// It prints one line of JSON for each event that the package hands to its caller, and ends when the stream is over
// for good. A client that reconnects by itself is closed at the event `end`, as the README says. `page.html` runs it in a
// page.

const [name, url, lastEventId] = process.argv.slice(2);
const headers = lastEventId === undefined ? {} : { "Last-Event-ID": lastEventId };

function say(type, data, id) {
  process.stdout.write(JSON.stringify({ type: type || "message", data, id }) + "\n");
}

// For each class with the interface of EventSource. Of named events it hears those that are listened to.
function listen(source) {
  for (const type of ["message", "weather", "end"]) {
    source.addEventListener(type, (event) => {
      say(event.type, event.data, event.lastEventId);
      if (type === "end") source.close();
    });
  }
}

// For each that turns a Response into an iterator.
async function iterate(events) {
  for await (const { event, data, id } of events) say(event, data, id);
}

const clients = {
  // The one of the browser itself.
  async EventSource() {
    listen(new EventSource(url));
  },

  async eventsource() {
    const { EventSource } = await import("eventsource");
    listen(new EventSource(url));
  },

  async "extended-eventsource"() {
    const { EventSource } = await import("extended-eventsource");
    listen(new EventSource(url, { disableLogger: true }));
  },

  async "event-source-polyfill"() {
    // In a page it exports nothing, and is global.
    const { EventSourcePolyfill } = (await import("event-source-polyfill")).default ?? globalThis;
    const source = new EventSourcePolyfill(url);
    listen(source);
    // To it, a response without content is a broken network: after a 204 it would come back for ever.
    source.addEventListener("error", ({ error }) => /getReader/.test(error?.message) && source.close());
  },

  async "eventsource-client"() {
    const { createEventSource } = await import("eventsource-client");
    const source = createEventSource({
      url,
      onMessage({ event, data, id }) {
        say(event, data, id);
        if (event === "end") source.close();
      },
    });
  },

  async "eventsource-parser"() {
    const { EventSourceParserStream } = await import("eventsource-parser/stream");
    const { body } = await fetch(url, { headers });
    await iterate(body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream()));
  },

  async "@microsoft/fetch-event-source"() {
    const { fetchEventSource } = await import("@microsoft/fetch-event-source");
    // It was written for pages.
    globalThis.window ??= globalThis;
    globalThis.document ??= new EventTarget();
    const over = new AbortController();
    await fetchEventSource(url, {
      signal: over.signal,
      fetch,
      async onopen({ status }) {
        if (status === 204) over.abort();
      },
      onmessage({ event, data, id }) {
        say(event, data, id);
        if (event === "end") over.abort();
      },
      // It reconnects after an error, and an end is none.
      onclose() {
        throw new Error("the stream ended");
      },
    });
  },

  async "@sentool/fetch-event-source"() {
    const { fetchEventSource } = await import("@sentool/fetch-event-source");
    await fetchEventSource(url, {
      headers,
      parseJson: false,
      onmessage: ({ event, data, id }) => say(event, data, id),
      onerror(error) {
        throw error;
      },
    });
  },

  async "fetch-event-stream"() {
    const { events } = await import("fetch-event-stream");
    await iterate(events(await fetch(url, { headers })));
  },

  async "openai (npm)"() {
    const { _iterSSEMessages } = await import("openai/core/streaming");
    await iterate(_iterSSEMessages(await fetch(url, { headers }), new AbortController()));
  },

  async "@anthropic-ai/sdk"() {
    const { Stream } = await import("@anthropic-ai/sdk/core/streaming");
    await iterate(Stream.rawEvents(await fetch(url, { headers })));
  },

  // The next ones call a service of which newswire plays the answers: `url` is the service. They report pieces of text,
  // then why the answer ended.

  async "openai (npm) chat"() {
    const { OpenAI } = await import("openai");
    const client = new OpenAI({ apiKey: "none", baseURL: `${url}/v1`, maxRetries: 0 });
    for await (const chunk of await client.chat.completions.create({ model: "played", messages, stream: true })) {
      sayChunk(chunk);
    }
  },

  async "@anthropic-ai/sdk messages"() {
    const { Anthropic } = await import("@anthropic-ai/sdk");
    const client = new Anthropic({ apiKey: "none", baseURL: url, maxRetries: 0 });
    const stream = client.messages.stream({ model: "played", max_tokens: 99, messages });
    stream.on("text", (text) => say("text", text, null));
    say("over", (await stream.finalMessage()).stop_reason, null);
  },

  async "@microsoft/fetch-event-source chat"() {
    const { fetchEventSource } = await import("@microsoft/fetch-event-source");
    globalThis.window = globalThis;
    globalThis.document = new EventTarget();
    await fetchEventSource(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model: "played", messages, stream: true }),
      fetch,
      onmessage({ data }) {
        if (data !== "[DONE]") sayChunk(JSON.parse(data));
      },
      onerror(error) {
        throw error;
      },
    });
  },
};

const messages = [{ role: "user", content: "What does the fox do?" }];

function sayChunk({ choices: [{ delta, finish_reason }] }) {
  if (delta.content) say("text", delta.content, null);
  if (finish_reason) say("over", finish_reason, null);
}

await clients[name]();
