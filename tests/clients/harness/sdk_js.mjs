// @anthropic-ai/sdk against BASE_URL with KEY. PART: work (all kinds of calls), refusal (a wrong key), retry (a 429 comes first).
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const { BASE_URL: baseURL, KEY, PART, SDK_JS } = process.env;
const load = createRequire(`${SDK_JS}/any.js`)('@anthropic-ai/sdk');
const Anthropic = load.default ?? load;
const model = 'claude-sonnet-4-5';
const hi = [{ role: 'user', content: 'say hi' }];
const ask = [{ role: 'user', content: 'go [[sim:read=/x/y]]' }];
const tools = [{
  name: 'Read',
  description: 'reads a file',
  input_schema: { type: 'object', properties: { file_path: { type: 'string' } }, required: ['file_path'] },
}];
const common = { model, max_tokens: 200 };

async function work(client) {
  const whole = await client.messages.create({ ...common, messages: hi });
  assert.match(whole.content[0].text, /^SIM-OK/);
  assert.equal(whole.stop_reason, 'end_turn');
  let pieces = 0;
  const streamed = await client.messages.stream({ ...common, messages: hi }).on('text', () => { pieces += 1; }).finalMessage();
  assert.match(streamed.content[0].text, /^SIM-OK/);
  assert.ok(pieces >= 2, `${pieces} pieces`);
  const asked = await client.messages.stream({ ...common, messages: ask, tools }).finalMessage();
  assert.equal(asked.stop_reason, 'tool_use');
  const use = asked.content.find((b) => b.type === 'tool_use');
  assert.deepEqual(use.input, { file_path: '/x/y' });
  const messages = [...ask, { role: 'assistant', content: asked.content },
    { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: 'secret-17' }] }];
  assert.match(await client.messages.stream({ ...common, messages, tools }).finalText(), /secret-17/);
  assert.ok((await client.messages.countTokens({ model, messages: hi })).input_tokens > 0);
  const models = [];
  for await (const one of client.models.list()) models.push(one.id);
  assert.ok(models.length >= 1);
}

if (PART === 'work') {
  await work(new Anthropic({ baseURL, apiKey: KEY, maxRetries: 0, timeout: 30000 }));
  await work(new Anthropic({ baseURL, apiKey: null, authToken: KEY, maxRetries: 0, timeout: 30000 }));
} else if (PART === 'refusal') {
  const wrong = new Anthropic({ baseURL, apiKey: 'nobody-knows-this', timeout: 30000 });
  await assert.rejects(wrong.messages.create({ ...common, messages: hi }), (error) => error.status === 401 && /forebay/.test(error.message));
} else if (PART === 'failover') {
  // No retry of its own: what it sees is what the router gives.
  const client = new Anthropic({ baseURL, apiKey: KEY, maxRetries: 0, timeout: 30000 });
  assert.match(await client.messages.stream({ ...common, messages: hi }).finalText(), /^SIM-OK/);
  assert.match((await client.messages.create({ ...common, messages: hi })).content[0].text, /^SIM-OK/);
} else if (PART === 'retry') {
  const client = new Anthropic({ baseURL, apiKey: KEY, timeout: 30000 });
  assert.match((await client.messages.create({ ...common, messages: hi })).content[0].text, /^SIM-OK/);
}
console.log('ok @anthropic-ai/sdk', PART);
