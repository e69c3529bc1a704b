// The walk of package wire, "Checks before decoding": bytes that pass it are
// one msgpack value that any decoder can take. It is iterative and trusts no
// length.

/** WeftError is an error with a code of package wire's closed list. */
export class WeftError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "WeftError";
    this.code = code;
  }
}

const bad = (why) => new WeftError("bad-payload", why);
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** check refuses whatever is not exactly one allowed value. */
export function check(bytes, maxDepth = 64) {
  if (checkFirst(bytes, 0, maxDepth) !== bytes.length) throw bad("bytes after the value");
}

/** checkFirst checks the value at pos and returns where it ends. */
export function checkFirst(bytes, pos = 0, maxDepth = 64) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const open = []; // what is being filled: {left: values, map}

  const take = (n) => {
    if (n > bytes.length - pos) throw bad(`${n} bytes claimed, ${bytes.length - pos} are left`);
    pos += n;
    return pos - n;
  };
  const uint = (n) => {
    let v = 0;
    for (let at = take(n), end = at + n; at < end; at++) v = v * 256 + bytes[at];
    return v;
  };
  const str = (n) => {
    const at = take(n);
    try {
      utf8.decode(bytes.subarray(at, at + n));
    } catch {
      throw bad("a string is not UTF-8");
    }
  };
  const container = (n, map) => {
    const left = map ? 2 * n : n;
    if (left > bytes.length - pos) throw bad(`${left} values claimed, ${bytes.length - pos} bytes are left`);
    if (open.length === maxDepth) throw bad(`deeper than ${maxDepth}`);
    open.push({ left, map });
  };
  const float = (v) => {
    if (!Number.isFinite(v)) throw bad("not a finite number");
  };
  const timestamp = (n) => {
    if (view.getInt8(take(1)) !== -1) throw bad("an extension that is no timestamp");
    const at = take(n);
    let seconds = 0n;
    let nanos = 0;
    if (n === 8) nanos = view.getUint32(at) >>> 2;
    else if (n === 12) [nanos, seconds] = [view.getUint32(at), view.getBigInt64(at + 4)];
    else if (n !== 4) throw bad(`a timestamp of ${n} bytes`);
    if (nanos > 999_999_999) throw bad("a timestamp with too many nanoseconds");
    if (seconds < -62167219200n || seconds > 253402300799n) throw bad("a timestamp outside the years 0 to 9999");
  };

  for (;;) {
    const type = bytes[take(1)];
    const into = open.at(-1);
    const isKey = into?.map && into.left % 2 === 0;
    if (into) into.left--;
    const isString = (type >= 0xa0 && type <= 0xbf) || (type >= 0xd9 && type <= 0xdb);
    if (isKey && !isString) throw bad("a key that is no string");
    if (type < 0x80 || type >= 0xe0) {
      // an integer in the type itself
    } else if (type < 0x90) container(type & 15, true);
    else if (type < 0xa0) container(type & 15, false);
    else if (type < 0xc0) str(type & 31);
    else if (type === 0xc1) throw bad("the byte 0xc1");
    else if (type < 0xc4) {
      // nil, false, true
    } else if (type < 0xc7) take(uint(1 << (type - 0xc4)));
    else if (type < 0xca) timestamp(uint(1 << (type - 0xc7)));
    else if (type === 0xca) float(view.getFloat32(take(4)));
    else if (type === 0xcb) float(view.getFloat64(take(8)));
    else if (type < 0xd0) take(1 << (type - 0xcc));
    else if (type < 0xd4) take(1 << (type - 0xd0));
    else if (type < 0xd9) timestamp(1 << (type - 0xd4));
    else if (type < 0xdc) str(uint(1 << (type - 0xd9)));
    else if (type < 0xde) container(uint(2 << (type - 0xdc)), false);
    else container(uint(2 << (type - 0xde)), true);
    while (open.length > 0 && open.at(-1).left === 0) open.pop();
    if (open.length === 0) return pos;
  }
}
