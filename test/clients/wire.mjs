// Names and payloads, as the package docs of subjects and wire say.
import { createHash, randomUUID } from "node:crypto";
import * as msgpack from "@msgpack/msgpack";
import { WeftError, check } from "./check.mjs";

export { WeftError, check, checkFirst } from "./check.mjs";

/** codes is the closed list of error codes. */
export const codes = new Set(("no-server target-gone timeout canceled app-error rejected denied busy limit bad-name bad-payload " +
  "bad-revision offline unavailable storage-full version internal").split(" "));

// ---- names (package subjects)

/** sha is the text form of hashes: of long names and of manifests. */
export const sha = (bytes) => {
  let [out, bits, value] = ["", 0, 0];
  for (const byte of createHash("sha256").update(bytes).digest()) {
    for (value = (value << 8) | byte, bits += 8; bits >= 5; value &= (1 << bits) - 1) {
      out += "abcdefghijklmnopqrstuvwxyz234567"[value >> (bits -= 5)];
    }
  }
  return out.slice(0, 26);
};

/** escape is a name as the header Weft-Name carries it: a token without a limit. */
export function escape(name) {
  if (name === "") return "=";
  return Buffer.from(name).toString("latin1").replace(/[^A-Za-z0-9_-]/g, (c) => "=" + c.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0"));
}

/** token is a name as one token of a subject. */
export function token(name) {
  const size = Buffer.byteLength(name);
  if (size > 255 || !name.isWellFormed()) throw new WeftError("bad-name", "a name is at most 255 bytes of UTF-8");
  const text = escape(name);
  return text.length > 96 ? "=h" + sha(name) : text;
}

/** nameOf reads what escape wrote; undefined for a hash and for what is no token. */
export function nameOf(text) {
  if (!/^(=|([A-Za-z0-9_-]|=[0-9A-F]{2})+)$/.test(text)) return undefined;
  const name = text === "=" ? "" : Buffer.from(text.replace(/=(..)/g, (_, x) => String.fromCharCode(parseInt(x, 16))), "latin1").toString("utf8");
  return escape(name) === text ? name : undefined;
}

export const topicTokens = (topic) => topic.split(".").map(token).join(".");
export const patternTokens = (pattern) => pattern.split(".").map((p, i, all) => (p === "*" || (p === ">" && i === all.length - 1) ? p : token(p))).join(".");

// ---- payloads (package wire)

/** encode writes a value as msgpack, or as JSON; undefined is "no value". */
export function encode(value, json = false) {
  if (value === undefined) return new Uint8Array();
  if (json) return Buffer.from(JSON.stringify(value));
  const bytes = msgpack.encode(exact(value, true), { useBigInt64: true, ignoreUndefined: true, maxDepth: 200 });
  check(bytes);
  return bytes;
}

/** decode checks bytes and reads them; integers beyond 2^53 become BigInt. */
export function decode(bytes, json = false, extra = 0) {
  if (bytes.length === 0) return undefined;
  if (!json) {
    bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length); // no Buffers inside
    check(bytes, 64 + extra);
    try {
      return exact(msgpack.decode(bytes, { useBigInt64: true }), false);
    } catch (e) {
      throw new WeftError("bad-payload", e.message); // a key __proto__, which the library does not take
    }
  }
  return parseJSON(Buffer.from(bytes).toString("utf8"), 64 + extra);
}

const mark = `int ${randomUUID()}`; // no text that is read can hold it

/** parseJSON reads JSON; integers of 64 bits beyond 2^53 become BigInt. */
export function parseJSON(text, maxDepth = 64) {
  const marked = text.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g, (t) => {
    if (!/^-?[1-9]\d*$/.test(t) || Number.isSafeInteger(Number(t))) return t;
    return BigInt.asIntN(64, BigInt(t)) === BigInt(t) || BigInt.asUintN(64, BigInt(t)) === BigInt(t) ? `{"${mark}":"${t}"}` : t;
  });
  let value;
  try {
    value = JSON.parse(marked);
  } catch (e) {
    throw new WeftError("bad-payload", e.message);
  }
  return allowed(value, maxDepth);
}

// allowed is parsed JSON as package wire takes it.
function allowed(v, depth) {
  if (typeof v === "string") return v.toWellFormed();
  if (typeof v === "number" && !Number.isFinite(v)) throw new WeftError("bad-payload", "a number beyond float64");
  if (typeof v !== "object" || v === null) return v;
  if (Object.hasOwn(v, mark)) return BigInt(v[mark]);
  if (depth === 0) throw new WeftError("bad-payload", "nested too deep");
  if (Array.isArray(v)) return v.map((x) => allowed(x, depth - 1));
  return Object.fromEntries(Object.entries(v).map(([k, x]) => [k.toWellFormed(), allowed(x, depth - 1)]));
}

/** isObject tells maps from arrays, bytes and dates. */
export const isObject = (v) => typeof v === "object" && v !== null && Object.getPrototypeOf(v) === Object.prototype;

// exact makes BigInts of large integers and UTF-8 of all strings for writing,
// and numbers of small BigInts that were read.
function exact(v, write) {
  if (write && typeof v === "string") return v.toWellFormed();
  if (write && Number.isSafeInteger(v) && Math.abs(v) >= 2 ** 31) return BigInt(v);
  if (!write && typeof v === "bigint" && Number.isSafeInteger(Number(v))) return Number(v);
  if (Array.isArray(v)) return v.map((x) => exact(x, write));
  if (!isObject(v)) return v;
  return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, exact(x, write)]));
}

export const isJSON = (headers) => {
  const type = (headers?.get("Content-Type") || "application/msgpack").split(";")[0].trim().toLowerCase();
  if (type !== "application/json" && type !== "application/msgpack") throw new WeftError("bad-payload", `Content-Type ${type}`);
  return type === "application/json";
};

/** injected says that a NATS server wrote the message on somebody's behalf. */
export function injected(headers, data) {
  const keys = (headers?.keys() ?? []).map((k) => k.toLowerCase());
  if (["nats-stream", "nats-subject", "nats-sequence", "status"].some((k) => keys.includes(k))) return true;
  const start = Buffer.from(data.subarray(0, 64)).toString("latin1").trimStart();
  return start.startsWith('{"type":"io.nats.') || (!headers?.get("Content-Type") && /^\{"(stream":"|error":\{"code")/.test(start));
}

/** parseStream reads a message of a data or push subject; undefined is dropped. */
export function parseStream(data) {
  try {
    const m = decode(data, false, 1);
    const at = data[0] === 0xdc ? 3 : data[0] === 0xdd ? 5 : 1;
    const seqAt = at + ({ 0xcc: 2, 0xcd: 3, 0xce: 5, 0xcf: 9 }[data[at]] ?? 1);
    const uint = (i) => data[i] < 0x80 || (data[i] >= 0xcc && data[i] <= 0xcf) || fail();
    const fail = () => { throw new WeftError("bad-payload", "not a stream message"); };
    if (!Array.isArray(m) || m.length < 2 || m.length > 4 || !uint(at) || !uint(seqAt)) fail();
    const [epoch, seq, third, reason] = m;
    if (m.length === 2) return { kind: "mark", epoch, seq };
    if (m.length === 3) return { kind: "data", epoch, seq, body: third };
    if (typeof third !== "string" || typeof reason !== "string") fail();
    return { kind: "close", epoch, seq, ...(codes.has(third) ? { code: third, reason } : { code: "internal", reason: `unknown code "${third}": ${reason}` }) };
  } catch {
    return undefined;
  }
}

/** errorOf is the error that a reply carries, undefined if none. */
export function errorOf(headers) {
  const [code, text] = [headers?.get("Weft-Error-Code"), headers?.get("Weft-Error")];
  if (!code) return undefined;
  return codes.has(code) ? new WeftError(code, text) : new WeftError("internal", `unknown code "${code}": ${text}`);
}

/** deadlineOf is how many milliseconds a call may take. */
export function deadlineOf(headers) {
  const left = Number(headers?.get("Weft-Deadline") || 30_000);
  if (!(left > 0)) throw new WeftError("bad-payload", "Weft-Deadline must be a number of milliseconds above 0");
  if (left > 600_000) throw new WeftError("limit", `Weft-Deadline: ${left} ms, the limit is 600000`);
  return left;
}
