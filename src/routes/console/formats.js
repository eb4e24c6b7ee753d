// The formats of keys and values, as section "Formats" of the README has them: between what the
// server's JSON says and the bytes that Kafka holds.
//
// A record came in one format, and the reader may want to see it in another: its bytes are worked
// out from the first and presented in the second, so records that are shown need not be read again.

import { indent, unquote, unquoteStart } from "./json_text.js";

export const FORMATS = [
  "string", "json", "bytearray", "avro", "protobuf", "short", "int", "long", "float", "double",
];

/** A longer string is not looked into for JSON. */
const LOOKED_INTO_CHARACTERS_MAX = 500_000;
const BASE64 = new Set(["bytearray", "byte_array", "avro", "protobuf"]);
const INTEGER_BYTES = { short: 2, int: 4, long: 8 };
const FLOAT_BYTES = { float: 4, double: 8 };

const numberFormat = new Intl.NumberFormat();

/** A count for people, with the separators of their language. */
export const digits = (count) => numberFormat.format(count);

export const isBinary = (format) => BASE64.has(format);

/**
 * A key or value ({text, format, error?}: `text` is JSON) in another format; without one as it is.
 * Bytes that do not fit stay base64 with an `error`, as the server delivers them.
 */
export function present(part, format) {
  if (!part || !format || part.format === format || part.format === undefined) return part;
  return fromBytes(toBytes(part), format);
}

/** The bytes in Kafka. */
export function toBytes({ text, format }) {
  if (BASE64.has(format)) return fromBase64(unquote(text));
  const size = INTEGER_BYTES[format] ?? FLOAT_BYTES[format];
  if (size === undefined) return new TextEncoder().encode(format === "json" ? text : unquote(text));
  const view = new DataView(new ArrayBuffer(size));
  if (format === "long") view.setBigInt64(0, BigInt(text));
  else if (format === "int") view.setInt32(0, Number(text));
  else if (format === "short") view.setInt16(0, Number(text));
  else if (format === "float") view.setFloat32(0, Number(unquote(text)));
  else view.setFloat64(0, Number(unquote(text)));
  return new Uint8Array(view.buffer);
}

function fromBytes(bytes, format) {
  const size = INTEGER_BYTES[format] ?? FLOAT_BYTES[format];
  const unfit = (error) => ({ text: JSON.stringify(toBase64(bytes)), format: "bytearray", error });
  if (BASE64.has(format)) return { text: JSON.stringify(toBase64(bytes)), format };
  if (size !== undefined) {
    if (bytes.length !== size) return unfit(`${format} is ${size} bytes, these are ${bytes.length}`);
    return { text: number(new DataView(bytes.buffer, bytes.byteOffset, size), format), format };
  }
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return unfit("this is not UTF-8");
  }
  if (format === "string") return { text: JSON.stringify(text), format };
  try {
    JSON.parse(text);
  } catch (error) {
    return unfit(`this is not JSON: ${error.message}`);
  }
  return { text, format };
}

function number(view, format) {
  if (format === "long") return String(view.getBigInt64(0));
  if (format === "int") return String(view.getInt32(0));
  if (format === "short") return String(view.getInt16(0));
  const value = format === "float" ? view.getFloat32(0) : view.getFloat64(0);
  if (!Number.isFinite(value)) return `"${value}"`;
  // The shortest digits that give the same float, not those of the double it is widened to.
  for (let digits = 6; format === "float" && digits < 10; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return String(short);
  }
  return String(value);
}

/** One line for a list, cut: control characters are made visible, bytes are hex. */
export function line(part, charactersMax) {
  if (!part) return "";
  if (part.format === undefined) return "null";
  if (BASE64.has(part.format)) {
    // What does not fit its type is often text all the same.
    const text = part.error && part.text.length < 4 * charactersMax && printable(toBytes(part));
    if (text) return text;
    const base64 = unquoteStart(part.text, Math.ceil(charactersMax / 9) * 4 + 2);
    const bytes = fromBase64(base64.slice(0, base64.length - (base64.length % 4)));
    return hexadecimal(bytes.subarray(0, Math.floor(charactersMax / 3)));
  }
  const text = part.format === "string"
    ? unquoteStart(part.text, charactersMax)
    : part.text.slice(0, charactersMax);
  return visible(part.format === "json" ? text.replace(/\s*[\r\n]\s*/g, " ") : text);
}

/** Bytes as text where they are nothing else, else "". */
function printable(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return visible(text) === text ? text : "";
  } catch {
    return "";
  }
}

/**
 * For reading: JSON indented, also where a string says it (`isJson`); others as they are. Of what is
 * longer than `charactersMax` the beginning, which is longer, too.
 */
export function readable(part, isJson, charactersMax = Infinity) {
  const text = part.format === "json" ? part.text : unquote(part.text);
  return part.format === "json" || isJson ? indent(text, charactersMax) : text;
}

/** Whether a string says a JSON object or array. */
export function isJsonInString(part) {
  if (part.format !== "string" || part.text.length > LOOKED_INTO_CHARACTERS_MAX) return false;
  const text = unquote(part.text);
  if (!/^\s*[[{]/.test(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Lines of 16 bytes: where, hexadecimal, and what of it is printable ASCII. */
export function hexDump(bytes) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16);
    const text = Array.from(row, (byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "."));
    lines.push(`${hex(at, 6)}  ${hexadecimal(row).padEnd(47)}  ${text.join("")}`);
  }
  return lines.join("\n");
}

/** The text in bytes that need not be text: what is not UTF-8 is shown as U+FFFD. */
export const textIn = (bytes) => new TextDecoder().decode(bytes);

/** What a person typed as a key or value, as JSON for a record of this format; throws if it cannot be. */
export function typed(text, format) {
  if (format === "string" || BASE64.has(format)) return JSON.stringify(text);
  try {
    JSON.parse(text);
    return text;
  } catch (error) {
    if (format === "json") throw new Error(`this is not JSON: ${error.message}`);
    // NaN and Infinity are strings; of anything else the server says what is wrong with it.
    return JSON.stringify(text.trim());
  }
}

function hexadecimal(bytes) {
  return Array.from(bytes, (byte) => hex(byte, 2)).join(" ");
}

/** Control characters as escapes, so that a record is one line and hides nothing. */
function visible(text) {
  return text.replace(/[\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (character) => {
    const code = character.charCodeAt(0);
    return ESCAPES[character] ?? (code < 256 ? `\\x${hex(code, 2)}` : `\\u${hex(code, 4)}`);
  });
}

const ESCAPES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

const hex = (number, digits) => number.toString(16).padStart(digits, "0");

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

export function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(text);
}
