// One record in full: where it stands, when it was written, its headers, key and value.
//
// A value that is long is shown in part and says so; copying has all of it. Bytes are shown as a hex
// dump and as the text in them.

import { digits, hexDump, isBinary, isJsonInString, present, readable, textIn, toBytes } from "./formats.js";
import { copyButton } from "./copy.js";

const CHARACTERS_MAX = 50_000;
const DUMP_BYTES_MAX = 4096;

/** Shows a record in `panel`; `commit(record)` and `back()` are behind buttons, the first if it is there. */
export function showRecord(panel, record, { keyType, valType, commit, back }) {
  const title = document.createElement("h2");
  title.textContent = `${record.topic}-${record.partition} @ ${record.offset}`;
  const actions = element("p", "actions");
  actions.append(copyButton("Copy as JSON", () => record.text, "copy-record"));
  if (commit) {
    const button = element("button", "", "Commit up to here");
    button.id = "commit-record";
    button.type = "button";
    button.addEventListener("click", () => commit(record));
    actions.append(button);
  }
  const toList = element("button", "narrow", "Back to the list");
  toList.type = "button";
  toList.addEventListener("click", back);
  actions.append(toList);
  panel.replaceChildren(title, actions, places(record), headers(record.headers));
  if (record.key) panel.append(...part("Key", record.key, keyType));
  else panel.append(heading("Key"), note("This record has no key."));
  if (record.error) panel.append(heading("Unreadable"), element("p", "error", record.error));
  else panel.append(...part("Value", record.value, valType));
}

function places({ topic, partition, offset, timestamp, text }) {
  const list = element("dl", "places");
  const add = (name, value) => list.append(element("dt", "", name), element("dd", "", value));
  add("topic", topic);
  add("partition", String(partition));
  add("offset", String(offset));
  if (timestamp !== undefined) {
    add("timestamp", String(timestamp));
    const date = new Date(timestamp);
    if (timestamp >= 0 && !Number.isNaN(date.getTime())) {
      add("local", `${date.toLocaleString(undefined, LOCAL_TIME)}`);
      add("UTC", date.toISOString().replace("T", " ").replace("Z", ""));
    }
  }
  add("as JSON", `${digits(text.length)} characters`);
  return list;
}

const LOCAL_TIME = {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit",
  second: "2-digit", fractionalSecondDigits: 3, timeZoneName: "short",
};

function headers(text) {
  const section = document.createDocumentFragment();
  section.append(heading("Headers"));
  const found = text ? JSON.parse(text) : [];
  if (found.length === 0) {
    section.append(note("This record has no headers."));
    return section;
  }
  const list = element("dl", "headers");
  for (const { key, value, format } of found) {
    const shown = element("dd", "", value ?? "");
    if (value === null) shown.replaceChildren(element("span", "note", "null"));
    else if (format) {
      shown.replaceChildren(block(key, hexDump(toBytes({ text: JSON.stringify(value), format }))));
    }
    list.append(element("dt", "", key), shown);
  }
  section.append(list);
  return section;
}

/** A key or value: its heading with the format, what is wrong with it, and itself. */
function part(name, value, format) {
  if (value.format === undefined) return [heading(name), note("null: a tombstone")];
  const shown = present(value, format);
  const isJson = isJsonInString(shown);
  const parts = [heading(name, isJson ? "string, indented as JSON" : shown.format)];
  if (shown.error) parts.push(element("p", "error", shown.error));
  if (isBinary(shown.format)) return [...parts, ...binary(name, toBytes(shown))];
  const text = readable(shown, isJson, CHARACTERS_MAX);
  parts.push(block(`${name} as ${shown.format}`, text.slice(0, CHARACTERS_MAX)));
  if (text.length > CHARACTERS_MAX) {
    parts.push(note(`The first ${digits(CHARACTERS_MAX)} characters. Copy has all.`));
  }
  parts.push(copyButton(`Copy ${name.toLowerCase()}`, () => readable(shown, isJson)));
  return parts;
}

function binary(name, bytes) {
  const shown = bytes.subarray(0, DUMP_BYTES_MAX);
  const parts = [
    block(`${name} as hexadecimal`, hexDump(shown) || "(no bytes)"),
    element("h4", "", "as text"),
    block(`${name} as text`, textIn(shown)),
  ];
  const size = digits(bytes.length);
  const cut = bytes.length > shown.length;
  parts.push(note(cut ? `The first ${digits(DUMP_BYTES_MAX)} of ${size} bytes.` : `${size} bytes.`));
  return parts;
}

/** Scrolls, so it can be reached by Tab. */
function block(label, text) {
  const pre = element("pre", "", text);
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", label);
  return pre;
}

function heading(text, format) {
  const title = element("h3", "", text);
  if (format) title.append(" ", element("small", "", format));
  return title;
}

const note = (text) => element("p", "note", text);

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}
