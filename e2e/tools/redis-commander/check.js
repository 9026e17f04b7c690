// Redis Commander shows what is there and changes it: what a person clicks, asked of its interface.
import { spawn } from "node:child_process";
import { strict as assert } from "node:assert";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

const require = createRequire(import.meta.url);
const [host, port] = process.env.LARDER_ADDRESS.split(":");
const isCluster = process.env.LARDER_CLUSTER === "yes";
const connection = { label: "larder", host, port: Number(port), password: process.env.LARDER_PASSWORD, dbIndex: 0, isCluster };

async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

const web = `http://127.0.0.1:${await freePort()}`;
const commander = spawn(process.execPath, [require.resolve("redis-commander/bin/redis-commander.js")], {
  // Not by its arguments, where everybody could read the password.
  env: {
    ...process.env,
    NODE_CONFIG: JSON.stringify({ noSave: true, noLogData: true, connections: [connection] }),
    ADDRESS: "127.0.0.1",
    PORT: new URL(web).port,
  },
});
let log = "";
commander.stdout.on("data", (text) => (log += text));
commander.stderr.on("data", (text) => (log += text));

const facts = (server) => Object.fromEntries(server.info.map((line) => [line.key, line.value]));

async function ask(path, method = "GET", form = undefined) {
  const body = form && new URLSearchParams(form);
  const answer = await fetch(web + path, { method, body });
  const text = await answer.text();
  assert(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
  return /json/.test(answer.headers.get("content-type")) ? JSON.parse(text) : text;
}

// The connection's name in its paths, once it is made.
async function connected() {
  for (;;) {
    assert.equal(commander.exitCode, null, log);
    const told = await ask("/apiv2/server/info").catch(() => undefined);
    const server = told?.data.find((one) => one.label === "larder" && one.info);
    if (server) return { id: encodeURIComponent(server.connectionId), info: facts(server) };
    await pause(50);
  }
}

try {
  const { id, info } = await connected();
  assert(/^\d+$/.test(info["Used memory"]) && Number(info["Connected clients"]) > 0, JSON.stringify(info));
  assert(/^\d+\.\d+\.\d+$/.test(info["Redis version"]), info["Redis version"]);
  if (isCluster) assert.equal(info["Cluster state"], "ok");
  const key = (name) => `/apiv2/key/${id}/${encodeURIComponent(name)}`;
  const tree = async (prefix = "") => (await ask(`/apiv2/keystree/${id}/${encodeURIComponent(prefix)}`)).data;
  const shell = async (cmd) => (await ask(`/apiv2/exec/${id}`, "POST", { cmd })).data;
  // A form that changes a collection names its connection.
  const form = (fields) => ({ connectionId: decodeURIComponent(id), ...fields });

  // All in one slot: RENAME stays within it.
  const all = ["string", "list", "set", "zset", "hash"];
  const name = (kind) => `shown:{them}:${kind}`;
  for (const kind of [...all, "renamed"]) await shell(`DEL ${name(kind)}`);

  // Made, each of its type.
  await ask(key(name("string")), "POST", { keyType: "string", stringValue: "one" });
  await ask(key(name("list")), "POST", { keyType: "list", stringValue: "one" });
  await ask(key(name("set")), "POST", { keyType: "set", stringValue: "one" });
  await ask(key(name("zset")), "POST", { keyType: "zset", stringValue: "one", keyScore: "7" });
  await ask(key(name("hash")), "POST", { keyType: "hash", fieldName: "field", stringValue: "one" });
  assert.equal(await shell(`EXPIRE ${name("string")} 600`), 1);

  // The tree, its folders and the leaves' types.
  assert((await tree()).some((node) => node.text.startsWith("shown:* (")), JSON.stringify(await tree()));
  const leaves = await tree("shown:{them}:");
  assert.deepEqual(Object.fromEntries(leaves.map((leaf) => [leaf.keyName, leaf.rel])), {
    string: "string", list: "list", set: "set", zset: "zset", hash: "hash",
  });

  // Edited, and what is shown then.
  await ask(key(name("string")), "POST", { stringValue: "two" });
  await ask("/apiv2/list/value", "POST", form({ key: name("list"), value: "two", type: "rpush" }));
  await ask("/apiv2/list/value", "PUT", form({ key: name("list"), index: "0", value: "first" }));
  await ask("/apiv2/set/member", "PUT", form({ key: name("set"), value: "two", oldValue: "one" }));
  await ask("/apiv2/zset/member", "PUT", form({ key: name("zset"), value: "two", oldValue: "one", score: "8" }));
  await ask("/apiv2/hash/field", "PUT", form({ key: name("hash"), field: "field", value: "two" }));
  const shown = {};
  for (const kind of all) shown[kind] = await ask(key(name(kind)));
  assert.equal(shown.string.value, "two");
  assert.deepEqual(shown.list.items.map((item) => item.value), ["first", "two"]);
  assert.deepEqual(shown.set.members, ["two"]);
  assert.deepEqual(shown.zset.items.map((item) => [item.value, item.score]), [["two", "8"]]);
  assert.deepEqual(shown.hash.data, { field: "two" });

  // Renamed, not over another one, and deleted: one key, then the rest of the folder.
  const taken = await ask(key(name("list")), "PATCH", { key: name("set") });
  assert.equal(taken.error.code, "ERR_KEY_EXISTS");
  assert.equal(await ask(key(name("list")), "PATCH", { key: name("renamed") }), "ok");
  assert.equal(await ask(`${key(name("set"))}?action=delete`, "POST"), "ok");
  const left = (await tree("shown:{them}:")).map((leaf) => leaf.keyName).sort();
  assert.deepEqual(left, ["hash", "renamed", "string", "zset"]);
  if (isCluster) {
    // A folder it looks for on one node only, whose keys these need not be.
    for (const kind of left) assert.equal(await ask(`${key(name(kind))}?action=delete`, "POST"), "ok");
  } else {
    assert.equal(await ask(`/apiv2/keys/${id}/${encodeURIComponent("shown:{them}:*")}?action=delete`, "POST"), "ok");
  }
  assert.deepEqual(await tree("shown:{them}:"), []);

  if (isCluster) {
    const nodes = (await ask(`/apiv2/server/${id}/cluster/nodes`)).data;
    assert(nodes.filter((node) => node.flags.includes("master")).length > 1, JSON.stringify(nodes));
  }
  console.log("redis-commander", require("redis-commander/package.json").version);
} catch (error) {
  console.error(log);
  throw error;
} finally {
  commander.kill();
}
