// A cache in use by node-redis.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createClient, createCluster } from "redis";

const url = `redis://${process.env.LARDER_ADDRESS}`;
const password = process.env.LARDER_PASSWORD || undefined;
const isCluster = process.env.LARDER_CLUSTER === "yes";

for (const RESP of [2, 3]) {
  const client = isCluster
    ? createCluster({ rootNodes: [{ url }], defaults: { password }, RESP })
    : createClient({ url, password, RESP });
  client.on("error", (error) => {
    throw error;
  });
  await client.connect();
  if (isCluster) {
    for (const { client: node } of client.masters) await (await node).flushAll();
  } else {
    await client.flushAll();
  }
  await Promise.all(Array.from({ length: 300 }, (_, n) => client.set(`key:${n}`, String(n), { EX: 600 })));
  const values = await Promise.all(Array.from({ length: 300 }, (_, n) => client.get(`key:${n}`)));
  values.forEach((value, n) => assert.equal(value, String(n)));
  assert.equal(await client.incrBy("{a}count", 5), 5);
  await client.hSet("{a}user", { name: "Ada", born: "1815" });
  assert.deepEqual({ ...(await client.hGetAll("{a}user")) }, { name: "Ada", born: "1815" });
  await client.rPush("{a}queue", ["one", "two"]);
  assert.deepEqual(await client.lRange("{a}queue", 0, -1), ["one", "two"]);
  await client.zAdd("{a}board", [{ score: 2, value: "bob" }, { score: 1, value: "ann" }]);
  assert.deepEqual(await client.zRange("{a}board", 0, -1), ["ann", "bob"]);
  const done = await client.multi().incr("{a}count").get("{a}count").exec();
  assert.deepEqual(done, [6, "6"]);
  const script = "return redis.call('INCRBY', KEYS[1], ARGV[1]) * 2";
  assert.equal(await client.eval(script, { keys: ["{a}scripted"], arguments: ["21"] }), 42);
  await client.xAdd("{a}stream", "*", { event: "made" });
  assert.equal((await client.xRange("{a}stream", "-", "+"))[0].message.event, "made");
  await assert.rejects(client.lPush("{a}count", "x"), /WRONGTYPE/);
  if (!isCluster) {
    const listener = client.duplicate();
    await listener.connect();
    let hear;
    const heard = new Promise((resolve) => (hear = resolve));
    await listener.subscribe("news", (message) => hear(message));
    await client.publish("news", "hello");
    assert.equal(await heard, "hello");
    listener.destroy();
  }
  client.destroy();
}
const { version } = JSON.parse(readFileSync(new URL("node_modules/redis/package.json", import.meta.url)));
console.log("node-redis", version);
