"""The anthropic package against BASE_URL with KEY. PART: work (all kinds of calls), refusal (a wrong key), retry (a 429 comes first)."""
import asyncio
import os

import anthropic

BASE, KEY, PART = os.environ["BASE_URL"], os.environ["KEY"], os.environ["PART"]
MODEL = "claude-sonnet-4-5"
HI = [{"role": "user", "content": "say hi"}]
ASK = [{"role": "user", "content": "go [[sim:read=/x/y]]"}]
TOOLS = [{"name": "Read", "description": "reads a file", "input_schema": {
    "type": "object", "properties": {"file_path": {"type": "string"}}, "required": ["file_path"]}}]


def same(seen, wanted, what):
    assert seen == wanted, "%s: %r is not %r" % (what, seen, wanted)


def turn(client, messages, **more):
    with client.messages.stream(model=MODEL, max_tokens=200, messages=messages, **more) as stream:
        pieces = list(stream.text_stream)
        return stream.get_final_message(), pieces


def work(client):
    whole = client.messages.create(model=MODEL, max_tokens=200, messages=HI)
    assert whole.content[0].text.startswith("SIM-OK") and whole.usage.output_tokens > 0, whole
    same(whole.stop_reason, "end_turn", "stop reason")
    streamed, pieces = turn(client, HI)
    assert len(pieces) >= 2 and "".join(pieces) == streamed.content[0].text, pieces
    same(streamed.stop_reason, "end_turn", "stop reason of the stream")
    asked, _ = turn(client, ASK, tools=TOOLS)
    same(asked.stop_reason, "tool_use", "stop reason of the tool turn")
    use = [b for b in asked.content if b.type == "tool_use"][0]
    same(use.input, {"file_path": "/x/y"}, "tool input")
    history = ASK + [{"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in asked.content]},
                     {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "secret-17"}]}]
    final, _ = turn(client, history, tools=TOOLS)
    assert "secret-17" in final.content[-1].text, final
    assert client.messages.count_tokens(model=MODEL, messages=HI).input_tokens > 0
    assert len(list(client.models.list())) >= 1


async def together(client, count=8):
    async def one(number):
        async with client.messages.stream(model=MODEL, max_tokens=200, messages=[{"role": "user", "content": "say %d" % number}]) as stream:
            return (await stream.get_final_message()).content[0].text
    texts = await asyncio.gather(*[one(n) for n in range(count)])
    assert len(texts) == count and all(t.startswith("SIM-OK") for t in texts), texts
    await client.close()


if PART == "work":
    work(anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0, timeout=30))
    work(anthropic.Anthropic(base_url=BASE, api_key=None, auth_token=KEY, max_retries=0, timeout=30))
    asyncio.run(together(anthropic.AsyncAnthropic(base_url=BASE, auth_token=KEY, api_key=None, max_retries=0, timeout=30)))
elif PART == "refusal":
    try:
        anthropic.Anthropic(base_url=BASE, api_key="nobody-knows-this", timeout=30).messages.create(model=MODEL, max_tokens=9, messages=HI)
    except anthropic.AuthenticationError as error:
        assert "forebay" in str(error), error
    else:
        raise AssertionError("a wrong key was let in")
elif PART == "failover":
    # No retry of its own: what it sees is what the router gives.
    client = anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0, timeout=30)
    message, _ = turn(client, HI)
    assert message.content[0].text.startswith("SIM-OK") and message.stop_reason == "end_turn", message
    whole = client.messages.create(model=MODEL, max_tokens=200, messages=HI)
    assert whole.content[0].text.startswith("SIM-OK"), whole
elif PART == "retry":
    text = turn(anthropic.Anthropic(base_url=BASE, api_key=KEY, timeout=30), HI)[0].content[0].text
    assert text.startswith("SIM-OK"), text
print("ok anthropic", anthropic.__version__, PART)
