// What was consumed, between the socket and the view: a queue and a buffer, both bounded.
//
//   frame ─▶ RecordQueue ─▶ RecordBuffer ─▶ view
//            texts of      the newest, by   (what matches
//            records       sequence number   the search)
//
// A browser cannot stop reading a WebSocket. So what comes faster than it can be taken in, or while
// the view is paused, waits in the queue; when that is full the oldest are left out and counted.
// Of what was taken in the newest are kept; what fell off is counted, too. Both are bounded by
// records and by characters, and nothing else grows.

import { isBinary, textIn, toBytes } from "./formats.js";
import { elements, members, unquote } from "./json_text.js";

export const RECORDS_MAX = 10_000;
const CHARACTERS_MAX = 32 * 1024 * 1024;

/** Texts of records that are not taken in yet, oldest first. */
export class RecordQueue {
  #texts = [];
  #head = 0;
  #characters = 0;
  leftOut = 0;

  get length() {
    return this.#texts.length - this.#head;
  }

  /** Takes a frame: an array of records or one. */
  push(frame) {
    for (const text of elements(frame)) {
      this.#texts.push(text);
      this.#characters += text.length;
    }
    while (this.length > RECORDS_MAX || (this.#characters > CHARACTERS_MAX && this.length > 1)) {
      this.shift();
      this.leftOut++;
    }
  }

  shift() {
    const text = this.#texts[this.#head];
    this.#texts[this.#head++] = undefined;
    this.#characters -= text.length;
    // Moved down seldom, so that taking one costs the same however many wait.
    if (this.#head > 4096 && this.#head * 2 > this.#texts.length) {
      this.#texts.splice(0, this.#head);
      this.#head = 0;
    }
    return text;
  }

  clear() {
    this.#texts = [];
    this.#head = 0;
    this.#characters = 0;
  }
}

/**
 * A record of `/socket/out`, cut into its parts; key and value as {text, format, error?} with their
 * JSON as text. What cannot be read (`unreadable`) has an `error` in place of a value. Answers to
 * commits, which have no offset, are no records: `undefined`.
 */
export function parseRecord(text) {
  const found = members(text);
  if (found.offset === undefined) return undefined;
  const error = found.error && members(found.error);
  return {
    text,
    id: unquote(found.wsProxyMessageId),
    topic: unquote(found.topic),
    partition: Number(found.partition),
    offset: Number(found.offset),
    timestamp: found.timestamp === undefined ? undefined : Number(found.timestamp),
    headers: found.headers,
    key: found.key && parsePart(found.key),
    value: found.value && parsePart(found.value),
    error: error && `${unquote(error.code)}: ${unquote(error.message)}`,
  };
}

function parsePart(text) {
  const { value, format, error } = members(text);
  return { text: value, format: format && unquote(format), error: error && unquote(error) };
}

/** The newest records, each under its sequence number, and which of them match the search. */
export class RecordBuffer {
  #records = new Array(RECORDS_MAX);
  #first = 0; // sequence number of the oldest that is kept
  #next = 0;
  #characters = 0;
  #pattern = null;
  #searched = 0; // sequence number of the first one that was not looked at
  #matches = []; // sequence numbers, ascending; the head is the first that is still kept
  #head = 0;

  get size() {
    return this.#next - this.#first;
  }
  /** How many there were since the last clear. */
  get received() {
    return this.#next;
  }
  get fellOff() {
    return this.#first;
  }

  push(record) {
    while (
      this.size === RECORDS_MAX
      || (this.size > 0 && this.#characters + record.text.length > CHARACTERS_MAX)
    ) {
      this.#dropOldest();
    }
    record.sequence = this.#next++;
    this.#records[record.sequence % RECORDS_MAX] = record;
    this.#characters += record.text.length;
  }

  #dropOldest() {
    const slot = this.#first % RECORDS_MAX;
    this.#characters -= this.#records[slot].text.length;
    this.#records[slot] = undefined;
    if (this.#matches[this.#head] === this.#first) this.#head++;
    this.#first++;
    if (this.#head > 4096 && this.#head * 2 > this.#matches.length) {
      this.#matches.splice(0, this.#head);
      this.#head = 0;
    }
  }

  clear() {
    this.#records.fill(undefined);
    this.#first = this.#next = this.#characters = 0;
    this.search(this.#needle);
  }

  /** What is looked for in keys, values and headers, in any case; nothing looks for nothing. */
  search(needle) {
    this.#needle = needle;
    this.#pattern = needle ? patternOf(needle) : null;
    this.#searched = this.#first;
    this.#matches = [];
    this.#head = 0;
  }
  #needle = "";

  /** Looks on until `deadline` (of performance.now()); whether everything was looked at. */
  searchUntil(deadline) {
    if (!this.#pattern) return true;
    this.#searched = Math.max(this.#searched, this.#first);
    for (let characters = 0; this.#searched < this.#next;) {
      if (characters > 65_536) {
        if (performance.now() > deadline) return false;
        characters = 0;
      }
      const record = this.#records[this.#searched % RECORDS_MAX];
      characters += record.text.length;
      if (matches(record, this.#pattern)) this.#matches.push(record.sequence);
      this.#searched++;
    }
    return true;
  }

  /** How many the view has: those that match, or all. */
  get viewSize() {
    return this.#pattern ? this.#matches.length - this.#head : this.size;
  }

  /** The view's record number `index`, 0 the oldest. */
  at(index) {
    const sequence = this.#pattern ? this.#matches[this.#head + index] : this.#first + index;
    return this.#records[sequence % RECORDS_MAX];
  }

  /** Where the view has this sequence number, or the next one behind it. */
  indexOf(sequence) {
    if (!this.#pattern) return Math.max(0, sequence - this.#first);
    let low = this.#head, high = this.#matches.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#matches[middle] < sequence) low = middle + 1;
      else high = middle;
    }
    return low - this.#head;
  }

  /** The newest record of each partition, as [topic and partition, record]. */
  newestOfPartitions() {
    const newest = new Map();
    for (let sequence = this.#first; sequence < this.#next; sequence++) {
      const record = this.#records[sequence % RECORDS_MAX];
      newest.set(`${record.topic}-${record.partition}`, record);
    }
    return newest;
  }
}

/** The needle as people type it, or as JSON escapes it. */
function patternOf(needle) {
  const escape = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const escaped = JSON.stringify(needle).slice(1, -1);
  return new RegExp(escaped === needle ? escape(needle) : `${escape(needle)}|${escape(escaped)}`, "i");
}

function matches({ key, value, headers, error }, pattern) {
  return (value && pattern.test(searchable(value))) || (key && pattern.test(searchable(key)))
    || (headers && pattern.test(headers)) || (error && pattern.test(error)) || false;
}

/** The text in bytes, not their base64. */
const searchable = (part) => (isBinary(part.format) ? textIn(toBytes(part)) : part.text);

/**
 * Whether a record is delivered again, after another socket took over: what is not committed comes
 * again. It is known by its place in the partition; one that is newer than all of them at an old
 * place is of a log that began anew (the topic was created again, or `--dev` restarted).
 */
export class Redelivery {
  #newest = new Map(); // topic and partition → offset and timestamp
  count = 0;

  isRepeated({ topic, partition, offset, timestamp }) {
    const at = `${topic}-${partition}`;
    const newest = this.#newest.get(at);
    if (newest && offset <= newest.offset && timestamp <= newest.timestamp) {
      this.count++;
      return true;
    }
    if (!newest || offset <= newest.offset) this.#newest.set(at, { offset, timestamp });
    else {
      newest.offset = offset;
      newest.timestamp = Math.max(newest.timestamp, timestamp);
    }
    return false;
  }

  clear() {
    this.#newest.clear();
    this.count = 0;
  }
}
