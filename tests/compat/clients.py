"""One Python client of an event stream: `clients.py NAME URL [LAST-EVENT-ID]`.

It prints one line of JSON for each event that the package hands to its caller, and ends when the stream is over for
good. A client that reconnects by itself is closed at the event `end`, as the README says.
"""

import asyncio
import json
import sys


def say(kind, data, id):
    print(json.dumps({"type": kind or "message", "data": data, "id": id}), flush=True)


def httpx_sse(url, headers):
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client(timeout=None) as client, connect_sse(client, "GET", url, headers=headers) as source:
        for event in source.iter_sse():
            say(event.event, event.data, event.id)


def niquests(url, headers):
    import niquests

    # `psse` is its scheme for an event stream without TLS.
    response = niquests.get(url.replace("http://", "psse://"), headers=headers)
    while (event := response.extension.next_payload()) is not None:
        say(event.event, event.data, event.id)


def sseclient_py(url, headers):
    import requests
    from sseclient import SSEClient

    # A byte at a time: of a body without a length or chunks, requests hands out whole blocks only, however old the
    # first byte of one is.
    response = requests.get(url, headers=headers, stream=True)
    for event in SSEClient(response.iter_content(chunk_size=1)).events():
        say(event.event, event.data, event.id)


def aiohttp_sse_client(url, headers):
    from aiohttp import ClientSession, ClientTimeout
    from aiohttp_sse_client.client import EventSource

    async def listen():
        async with ClientSession(timeout=ClientTimeout(total=None)) as session:
            async with EventSource(url, session=session, headers=headers) as source:
                try:
                    async for event in source:
                        say(event.type, event.data, event.last_event_id)
                        if event.type == "end":
                            return
                except ConnectionAbortedError as error:
                    # This is how it reports the status that ends a stream for good.
                    if "204" not in str(error):
                        raise

    asyncio.run(listen())


def aiosseclient(url, headers):
    from aiosseclient import aiosseclient

    async def listen():
        async for event in aiosseclient(url, headers=headers):
            say(event.event, event.data, event.id)

    asyncio.run(listen())


def sdk(client, stream_class, url, headers):
    # The events as the SDK decodes them, before it reads their data as JSON of its own service. By itself the SDK asks for
    # JSON, and a channel answers that with its description.
    headers = {"Accept": "text/event-stream", **headers}
    stream = client.get(url, cast_to=object, stream=True, stream_cls=stream_class, options={"headers": headers})
    for event in stream._iter_events():
        say(event.event, event.data, event.id)


def openai(url, headers):
    from openai import OpenAI, Stream

    sdk(OpenAI(api_key="none"), Stream[object], url, headers)


def anthropic(url, headers):
    from anthropic import Anthropic, Stream

    sdk(Anthropic(api_key="none"), Stream[object], url, headers)


# The next ones call a service of which newswire plays the answers: `url` is the service. They report pieces of text,
# then why the answer ended.

QUESTION = [{"role": "user", "content": "What does the fox do?"}]


def openai_chat(url, _headers):
    from openai import OpenAI, RateLimitError

    try:
        client = OpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0)
        for chunk in client.chat.completions.create(model="played", messages=QUESTION, stream=True):
            [choice] = chunk.choices
            if choice.delta.content:
                say("text", choice.delta.content, None)
            if choice.finish_reason:
                say("over", choice.finish_reason, None)
    except RateLimitError as refusal:
        say("refused", refusal.response.headers["Retry-After"], None)


def anthropic_messages(url, _headers):
    from anthropic import Anthropic

    client = Anthropic(api_key="none", base_url=url, max_retries=0)
    with client.messages.stream(model="played", max_tokens=99, messages=QUESTION) as stream:
        for text in stream.text_stream:
            say("text", text, None)
        say("over", stream.get_final_message().stop_reason, None)


if __name__ == "__main__":
    name, url, *last_event_id = sys.argv[1:]
    listen = globals()[name.replace("-", "_")]
    listen(url, {"Last-Event-ID": id for id in last_event_id})
