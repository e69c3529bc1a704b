// The test vectors of packages wire and kv, read with @msgpack/msgpack: what the
// Go side writes a JavaScript client reads, and the reverse.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as msgpack from "@msgpack/msgpack";
import { Fold, canonical, keyOf, parseKey } from "./context.mjs";
import { WeftError, check, decode, encode, nameOf, parseJSON, parseStream, token } from "./wire.mjs";

const vectors = (folder, name) => JSON.parse(readFileSync(new URL(`../../${folder}/testdata/${name}`, import.meta.url)));
const bytesOf = (hex) => new Uint8Array(Buffer.from(hex, "hex"));

// plain is a decoded value as its JSON form, with numbers that compare exactly.
function plain(v) {
  if (typeof v === "bigint") return `#${v}`;
  if (typeof v === "number") return Number.isInteger(v) ? `#${BigInt(v)}` : v;
  if (v instanceof Uint8Array) return Buffer.from(v).toString("base64");
  if (typeof v?.sec === "number" && typeof v?.nsec === "number" && v.stamp) return rfc3339(v);
  if (Array.isArray(v)) return v.map(plain);
  if (v && typeof v === "object") return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, plain(x)]));
  return v;
}

function rfc3339({ sec, nsec }) {
  const fraction = nsec ? "." + String(nsec).padStart(9, "0").replace(/0+$/, "") : "";
  return new Date(sec * 1000).toISOString().replace(/\.\d+Z$/, `${fraction}Z`);
}

const stamps = new msgpack.ExtensionCodec();
stamps.register({ type: -1, encode: () => null, decode: (data) => ({ ...msgpack.decodeTimestampToTimeSpec(data), stamp: true }) });

const wellFormed = (v) => (typeof v === "string" ? v.toWellFormed() : v);

for (const v of vectors("wire", "vectors.json")) {
  test(`vector: ${v.name}`, () => {
    if (v.error) {
      if (v.hex !== undefined) return assert.throws(() => check(bytesOf(v.hex)), WeftError);
      return assert.throws(() => encode(decode(Buffer.from(v.json), true) ?? assert.fail("no value")));
    }
    const value = parseJSON(v.json);
    const bytes = bytesOf(v.hex);
    check(bytes);
    if (v.hex.includes(Buffer.from("__proto__").toString("hex"))) {
      // @msgpack/msgpack does not take this key; the client says so in our words.
      return assert.throws(() => decode(bytes), { code: "bad-payload" });
    }
    const got = msgpack.decode(bytes, { useBigInt64: true, extensionCodec: stamps });
    assert.deepEqual(plain(got), plain(wellFormed(value)));
    const again = encode(value);
    assert.deepEqual(plain(msgpack.decode(again, { useBigInt64: true })), plain(wellFormed(value)), "what this client writes");
  });
}

for (const v of vectors("wire", "stream-vectors.json")) {
  test(`stream vector: ${v.name}`, () => {
    const m = parseStream(bytesOf(v.hex));
    if (v.error) return assert.equal(m, undefined);
    assert.equal(m.kind, v.kind);
    assert.equal(String(BigInt(m.epoch)), v.epoch);
    assert.equal(String(BigInt(m.seq)), v.seq);
    if (v.kind === "data") assert.deepEqual(plain(m.body), plain(parseJSON(v.body)));
    if (v.kind === "close") assert.deepEqual([m.code, m.reason], [v.code, v.reason]);
  });
}

test("the examples of names in package subjects", () => {
  for (const [name, want] of [
    ["GetPortfolio", "GetPortfolio"], ["T42.Demo", "T42=2EDemo"], ["___channel___Red", "___channel___Red"], ["", "="], ["*", "=2A"],
    ["50 %", "50=20=25"], ["a=b", "a=3Db"], ["Zürich", "Z=C3=BCrich"], ["a".repeat(97), "=hfiwgb7uwv6wjcuouxwjs7w2fxy"],
  ]) {
    assert.equal(token(name), want);
    assert.equal(nameOf(want), want.startsWith("=h") ? undefined : name);
  }
  for (const bad of ["=41", "=2e", "=FF", "a.b", "", "=h", "a=2"]) assert.equal(nameOf(bad), undefined, bad);
  for (const bad of ["a".repeat(256), "\ud800"]) assert.throws(() => token(bad), { code: "bad-name" });
});

for (const v of vectors("kv", "fold.json")) {
  test(`fold: ${v.name}`, () => {
    const entries = v.entries.map(({ json, hex, op = "put", ...e }) => ({ ...e, op, json: json !== undefined, data: new Uint8Array(Buffer.from(json ?? hex ?? "", json === undefined ? "hex" : "utf8")) }));
    for (let turn = 0; turn < entries.length || turn === 0; turn++) {
      const fold = new Fold("client");
      for (const e of entries) fold.add(e);
      const { exists, object, revision } = fold.state();
      assert.deepEqual({ exists, revision }, { exists: v.exists, revision: v.revision });
      assert.equal(object && canonical(object), v.object && canonical(parseJSON(v.object)));
      entries.push(entries.shift()); // in any order
    }
  });
}

test("keys", () => {
  for (const [context, path, want] of [
    ["client", [], "client./"], ["client", ["limit"], "client.limit"], ["client", ["T42.Demo", "", "Zürich"], "client.T42=2EDemo.=.Z=C3=BCrich"],
    ["=hfiwgb7uwv6wjcuouxwjs7w2fxy", ["a"], "=hfiwgb7uwv6wjcuouxwjs7w2fxy.a"],
  ]) {
    assert.equal(keyOf(context, path), want);
    assert.deepEqual(parseKey(want), { context, path, meta: false });
  }
  for (const path of [["x".repeat(97)], ["a", "ü".repeat(33)], Array(17).fill("a"), Array(16).fill("x".repeat(80))]) assert.equal(keyOf("client", path), undefined);
  for (const key of ["client", "client.", "client.a.", "client./.a", "client.///", "=.=h", ".a", "cl/ient.a"]) assert.equal(parseKey(key), undefined, key);
});
