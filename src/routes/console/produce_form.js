// Produces: one record from the form, or a file of lines, a hundred records a frame.
//
// Answers come in the order of the records, so what waits is a queue; each answer is shown with the
// time since its record was sent, and each error as it came. What waits when the socket closes may or
// may not be in the log, and is said to be so. A file is read in parts and sent with at most
// FRAMES_MAX frames unanswered, so its size does not matter.

import { Connection, closeInWords } from "./connection.js";
import { subProtocols } from "./credentials.js";
import { digits, typed } from "./formats.js";
import { elements, members, unquote } from "./json_text.js";
import { produceUrl, randomName } from "./parameters.js";

const RECORDS_PER_FRAME = 100;
/** Frames stay below the server's max-message-size, 1 MiB unless it is configured. */
const CHARACTERS_PER_FRAME = 256 * 1024;
const FRAMES_MAX = 4;
const ANSWERS_MAX = 100;

export class ProduceForm {
  #form;
  #answers;
  #summary;
  #connection;
  #clientId = randomName("console-");
  #opened = ""; // what the socket was opened with
  #waiting = []; // frames without an answer, oldest first: { count, sentAt }
  #wakes = []; // resolve what waits for an answer or a change of the socket
  #stopped = false;

  /** `say(text)` tells people that do not look at the answers. */
  constructor(form, answers, summary, say) {
    this.#form = form;
    this.#answers = answers;
    this.#summary = summary;
    this.say = say;
    this.#connection = new Connection({
      url: () => produceUrl(this.parameters, { clientId: this.#clientId, errors: "close" }),
      protocols: subProtocols,
      received: (text) => this.#answered(text),
      changed: () => this.#changed(),
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#sendOne();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    form.elements.file.addEventListener("change", () => this.#sendFile());
    form.elements.stop.addEventListener("click", () => {
      this.#stopped = true;
      this.#wake();
    });
  }

  get parameters() {
    const { topic, keyType, valType } = this.#form.elements;
    return { topic: topic.value, keyType: keyType.value, valType: valType.value };
  }

  get clientId() {
    return this.#clientId;
  }

  /** The record of the form as JSON; throws with what is wrong with it. */
  record() {
    const { key, noValue, value, headers, partition } = this.#form.elements;
    const { keyType, valType } = this.parameters;
    const parts = [];
    const found = headersOf(headers.value);
    if (found.length > 0) parts.push(`"headers":${JSON.stringify(found)}`);
    if (key.value !== "") parts.push(`"key":{"value":${describe("Key", () => typed(key.value, keyType))}}`);
    if (noValue.checked) parts.push('"value":null');
    else parts.push(`"value":{"value":${describe("Value", () => typed(value.value, valType))}}`);
    if (partition.value !== "") parts.push(`"partition":${Number(partition.value)}`);
    return `{${parts.join(",")}}`;
  }

  /** Closes the socket; the next record opens another, with the credentials there are then. */
  close() {
    this.#opened = "";
    this.#waiting = [];
    return this.#connection.close();
  }

  async #sendOne() {
    let text;
    try {
      text = this.record();
    } catch (error) {
      this.#show(error.message, "error");
      return;
    }
    if (!(await this.#open())) return;
    this.#send(text, 1);
  }

  /** Whether the socket is open, with the parameters of now; what it was closed with is shown. */
  async #open() {
    const wanted = JSON.stringify([this.parameters, subProtocols()]);
    if (this.#opened !== wanted) {
      // The answers that are due come first.
      while (this.#waiting.length > 0 && this.#connection.state === "open") await this.#change();
      await this.close();
      this.#opened = wanted;
    }
    if (this.#connection.state === "waiting") this.#connection.retry();
    this.#connection.open();
    while (this.#connection.state === "connecting") await this.#change();
    // A refusal comes at once behind the opening: `errors=close`.
    return this.#connection.state === "open";
  }

  #change() {
    return new Promise((resolve) => this.#wakes.push(resolve));
  }

  #wake() {
    for (const resolve of this.#wakes.splice(0)) resolve();
  }

  #send(text, count) {
    if (!this.#connection.send(text)) return false;
    this.#waiting.push({ count, sentAt: performance.now() });
    return true;
  }

  #changed() {
    const { state, closed } = this.#connection;
    if (closed && (state === "closed" || state === "waiting")) {
      const lost = this.#waiting.reduce((sum, { count }) => sum + count, 0);
      this.#waiting = [];
      // What was refused before it was a producer's socket is not in the log.
      const outcome = lost === 0 ? "" : closed.code >= 4000
        ? ` ${counted(lost, "record")} not written.`
        : ` ${counted(lost, "record")} without an answer: may or may not be in the log.`;
      this.#show(`The socket was closed with ${closeInWords(closed)}.${outcome}`, "error");
      // Without anything to send there is no reason to try again.
      if (state === "waiting") this.#connection.close();
    }
    this.#wake();
  }

  #answered(text) {
    const frame = this.#waiting.shift();
    const took = frame ? performance.now() - frame.sentAt : NaN;
    const answers = elements(text);
    let errors = 0;
    for (const answer of answers) {
      const { error } = members(answer);
      if (!error) continue;
      errors++;
      const { code, message } = members(error);
      this.#show(`${unquote(code)}: ${unquote(message)}`, "error", took);
    }
    this.#count(answers.length, errors, took);
    const produced = answers.length - errors;
    if (produced === 1 && answers.length === 1) {
      const { topic, partition, offset } = members(answers[0]);
      this.#show(`${unquote(topic)}-${partition} @ ${offset}`, "", took);
    } else if (produced > 0) {
      this.#show(`${counted(produced, "record")} written`, "", took);
    }
    this.#wake();
  }

  #total = { records: 0, errors: 0, longest: 0 };

  #count(records, errors, took) {
    this.#total.records += records;
    this.#total.errors += errors;
    this.#total.longest = Math.max(this.#total.longest, took);
    const { records: all, errors: failed, longest } = this.#total;
    this.#summary.textContent =
      `${counted(all, "answer")}, ${counted(failed, "error")}; slowest ${milliseconds(longest)}`;
  }

  #show(text, className, took) {
    const item = document.createElement("li");
    const at = document.createElement("time");
    at.textContent = new Date().toLocaleTimeString(undefined, { hour12: false });
    const what = document.createElement("span");
    what.textContent = text;
    what.className = className;
    item.append(at, what);
    if (took >= 0) {
      const latency = document.createElement("small");
      latency.textContent = milliseconds(took);
      item.append(latency);
    }
    this.#answers.prepend(item);
    while (this.#answers.childElementCount > ANSWERS_MAX) this.#answers.lastElementChild.remove();
    this.#announce(text);
  }

  /** One at a time, the newest, so that a file does not flood a screen reader. */
  #announce(text) {
    if (!this.#announcing) {
      setTimeout(() => {
        this.say(this.#announcing);
        this.#announcing = "";
      }, 1000);
    }
    this.#announcing = text;
  }
  #announcing = "";

  async #sendFile() {
    const { file, lines, stop } = this.#form.elements;
    const [chosen] = file.files;
    if (!chosen) return;
    const asRecord = lines.value === "records" ? (line) => line : this.#recordOfLine();
    this.#stopped = false;
    stop.hidden = false;
    let batch = [], characters = 0, line = 0;
    const flush = async () => {
      if (batch.length === 0) return true;
      const text = `[${batch.join(",")}]`;
      const count = batch.length;
      batch = [];
      characters = 0;
      return this.#sendFrame(text, count);
    };
    try {
      let going = true;
      for await (const text of linesOf(chosen)) {
        line++;
        if (text.trim() === "") continue;
        const record = describe(`Line ${line}`, () => asRecord(text));
        if (characters + record.length > CHARACTERS_PER_FRAME || batch.length === RECORDS_PER_FRAME) {
          going = await flush();
          if (!going) break;
        }
        batch.push(record);
        characters += record.length;
      }
      if (going) await flush();
      while (going && this.#waiting.length > 0 && !this.#stopped) await this.#change();
      if (!going || this.#stopped) this.#show(`Stopped before line ${line} of ${chosen.name}.`, "error");
      else this.#show(`${chosen.name} is through: ${counted(line, "line")}.`, "");
    } catch (error) {
      this.#show(error.message, "error");
    } finally {
      stop.hidden = true;
      file.value = "";
    }
  }

  /** Waits until there is room; whether the frame was sent. */
  async #sendFrame(text, count) {
    if (!(await this.#open())) return false;
    while (this.#waiting.length >= FRAMES_MAX && this.#connection.state === "open" && !this.#stopped) {
      await this.#change();
    }
    return !this.#stopped && this.#send(text, count);
  }

  /** Lines are values; key, headers and partition are the form's. */
  #recordOfLine() {
    const { key, headers, partition } = this.#form.elements;
    const { keyType, valType } = this.parameters;
    let before = "";
    const found = headersOf(headers.value);
    if (found.length > 0) before += `"headers":${JSON.stringify(found)},`;
    if (key.value !== "") before += `"key":{"value":${typed(key.value, keyType)}},`;
    if (partition.value !== "") before += `"partition":${Number(partition.value)},`;
    return (line) => `{${before}"value":{"value":${typed(line, valType)}}}`;
  }
}

async function* linesOf(file) {
  const reader = file.stream().pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield line.endsWith("\r") ? line.slice(0, -1) : line;
  }
  if (rest !== "") yield rest;
}

/** `name: value` a line. */
function headersOf(text) {
  return text.split("\n").filter((line) => line.trim() !== "").map((line) => {
    const colon = line.indexOf(":");
    if (colon < 1) throw new Error(`Headers: a line is "name: value", this is "${line}"`);
    return { key: line.slice(0, colon).trim(), value: line.slice(colon + 1).trim() };
  });
}

function describe(what, make) {
  try {
    return make();
  } catch (error) {
    throw new Error(`${what}: ${error.message}`);
  }
}

const milliseconds = (took) => `${took < 10 ? took.toFixed(1) : Math.round(took)} ms`;

const counted = (n, noun) => `${digits(n)} ${noun}${n === 1 ? "" : "s"}`;
