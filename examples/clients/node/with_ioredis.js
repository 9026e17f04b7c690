// A cache in use by ioredis.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Cluster, Redis } from "ioredis";

const [host, port] = process.env.LARDER_ADDRESS.split(":");
const password = process.env.LARDER_PASSWORD || undefined;
const isCluster = process.env.LARDER_CLUSTER === "yes";
const at = { host, port: Number(port) };
const client = isCluster ? new Cluster([at], { redisOptions: { password } }) : new Redis({ ...at, password });

if (client.status !== "ready") await new Promise((resolve) => client.once("ready", resolve));
await Promise.all((isCluster ? client.nodes("master") : [client]).map((node) => node.flushall()));
await Promise.all(Array.from({ length: 300 }, (_, n) => client.set(`key:${n}`, n, "EX", 600)));
const values = await Promise.all(Array.from({ length: 300 }, (_, n) => client.get(`key:${n}`)));
values.forEach((value, n) => assert.equal(value, String(n)));
assert.equal(await client.incrby("{a}count", 5), 5);
await client.hset("{a}user", { name: "Ada", born: 1815 });
assert.deepEqual(await client.hgetall("{a}user"), { name: "Ada", born: "1815" });
await client.rpush("{a}queue", "one", "two");
assert.deepEqual(await client.blpop("{a}queue", 1), ["{a}queue", "one"]);
await client.zadd("{a}board", 2, "bob", 1, "ann");
assert.deepEqual(await client.zrange("{a}board", 0, -1, "WITHSCORES"), ["ann", "1", "bob", "2"]);
assert.deepEqual(await client.mget("{a}count", "{a}none"), ["5", null]);
const done = await client.multi().incr("{a}count").get("{a}count").exec();
assert.deepEqual(done, [[null, 6], [null, "6"]]);
const piped = await client.pipeline().set("{a}p", 1).incr("{a}p").exec();
assert.deepEqual(piped[1], [null, 2]);
client.defineCommand("twice", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1]) * 2" });
assert.equal(await client.twice("{a}scripted", 21), 42);
const id = await client.xadd("{a}stream", "*", "event", "made");
assert.deepEqual(await client.xrange("{a}stream", "-", "+"), [[id, ["event", "made"]]]);
await assert.rejects(client.lpush("{a}count", "x"), /WRONGTYPE/);
if (!isCluster) {
  const found = [];
  for await (const keys of client.scanStream({ match: "key:1?" })) found.push(...keys);
  assert.equal(new Set(found).size, 10);
  const listener = client.duplicate();
  const heard = new Promise((resolve) => listener.on("message", (channel, message) => resolve([channel, message])));
  await listener.subscribe("news");
  assert.equal(await client.publish("news", "hello"), 1);
  assert.deepEqual(await heard, ["news", "hello"]);
  listener.disconnect();
}
client.disconnect();
const { version } = JSON.parse(readFileSync(new URL("node_modules/ioredis/package.json", import.meta.url)));
console.log("ioredis", version);
