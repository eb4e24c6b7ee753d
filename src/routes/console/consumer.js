// Consumes: the socket, what waits, and what was taken in.
//
//   Connection ─▶ RecordQueue ─(slices of 8 ms)─▶ Redelivery ─▶ RecordBuffer
//
// Frames are arrays of up to 100 records, so that a frame costs little. They are taken in by slices
// that leave the main thread to the reader in between, also while the tab is hidden.
//
// Without a group of the reader's own the page takes one of its own, under a random name, which nobody
// else shares. Nothing is committed in it but what the reader commits, and its place when another type
// opens a new socket: so what came does not come again. What comes again all the same (after a broken
// connection, or in the reader's group) is recognised, counted, and not shown twice.

import { Connection } from "./connection.js";
import { subProtocols } from "./credentials.js";
import { consumeUrl, randomName } from "./parameters.js";
import { parseRecord, RecordBuffer, RecordQueue, Redelivery } from "./records.js";

const SLICE_MS = 8;
const BATCH_SIZE = "100";

export class Consumer {
  #queue = new RecordQueue();
  #redelivery = new Redelivery();
  #channel = new MessageChannel();
  #scheduled = false;
  #arrivals = []; // { at, received } of the last seconds, for the rate
  #clientId = randomName("console-");
  #ownGroupId = this.#clientId;
  parameters = null;
  paused = false;
  buffer = new RecordBuffer();

  /**
   * `changed()` is called when the socket's state changed, `arrived()` when records were taken in,
   * `refused(text)` with an error that the server sent.
   */
  constructor({ changed, arrived, refused }) {
    Object.assign(this, { arrived, refused });
    this.#channel.port1.onmessage = () => {
      this.#scheduled = false;
      this.#takeIn();
    };
    this.connection = new Connection({
      url: () => this.url,
      protocols: subProtocols,
      received: (frame) => {
        this.#queue.push(frame);
        this.#schedule();
      },
      changed,
    });
  }

  get url() {
    const { parameters } = this;
    return consumeUrl(parameters, {
      clientId: this.#clientId,
      groupId: parameters.groupId || this.#ownGroupId,
      batchSize: BATCH_SIZE,
      errors: "close",
    });
  }

  /** Records that wait, that were left out, and that came again. */
  get waiting() {
    return this.#queue.length;
  }
  get leftOut() {
    return this.#queue.leftOut;
  }
  get repeated() {
    return this.#redelivery.count;
  }

  /** Starts anew with these parameters, in a new group if it is the page's own. */
  async read(parameters) {
    this.#wanted = true;
    if (!(await this.#closed())) return;
    this.clear();
    this.#committed.clear();
    this.#redelivery.clear();
    this.#ownGroupId = this.#clientId = randomName("console-");
    this.parameters = parameters;
    this.connection.open();
  }

  /** Goes on where it was with other types or credentials; what was taken in stays. */
  async reopen(parameters) {
    if (!parameters.groupId && parameters.autoCommit === "false") this.commitAll();
    this.parameters = parameters;
    // What was refused is tried again when it is asked for.
    if (this.connection.closed && this.connection.state === "closed") this.#wanted = false;
    if ((await this.#closed()) && this.#wanted) this.connection.open();
  }

  stop() {
    this.#wanted = false;
    this.#turn++;
    return this.connection.close();
  }

  /** Closes the socket; whether nobody asked for something else meanwhile, who then goes on. */
  async #closed() {
    const turn = ++this.#turn;
    await this.connection.close();
    return turn === this.#turn;
  }
  #turn = 0;
  #wanted = false;

  pause(paused) {
    this.paused = paused;
    this.#schedule();
  }

  clear() {
    this.#queue.clear();
    this.#queue.leftOut = 0;
    this.#arrivals = [];
    this.buffer.clear();
  }

  /** Commits a record, and so all before it in its partition; whether it was sent. */
  commit(record) {
    return this.connection.send(JSON.stringify({ wsProxyMessageId: record.id }));
  }

  /** Commits the newest record of each partition that has a newer one than was committed; of how many. */
  commitAll() {
    let sent = 0;
    for (const [at, record] of this.buffer.newestOfPartitions()) {
      if (this.#committed.get(at) === record.id || !this.commit(record)) continue;
      this.#committed.set(at, record.id);
      sent++;
    }
    return sent;
  }
  #committed = new Map();

  search(needle) {
    this.buffer.search(needle);
    this.#schedule();
  }

  /** Records per second that were taken in or left out, over the last two seconds. */
  rate() {
    const now = performance.now();
    const count = this.buffer.received + this.leftOut + this.waiting;
    this.#arrivals.push({ now, count });
    while (now - this.#arrivals[0].now > 2000 && this.#arrivals.length > 2) this.#arrivals.shift();
    const first = this.#arrivals[0];
    return now > first.now ? Math.max(0, ((count - first.count) * 1000) / (now - first.now)) : 0;
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#channel.port2.postMessage(null);
  }

  #takeIn() {
    const deadline = performance.now() + SLICE_MS;
    while (this.#queue.length > 0 && !this.paused && performance.now() < deadline) {
      // The clock is asked seldom where records are short, and for each that is long.
      for (let characters = 0; this.#queue.length > 0 && characters < 16_384;) {
        const text = this.#queue.shift();
        characters += text.length;
        this.#take(text);
      }
    }
    const searched = this.buffer.searchUntil(deadline);
    if ((this.#queue.length > 0 && !this.paused) || !searched) this.#schedule();
    this.arrived();
  }

  #take(text) {
    const record = parseRecord(text);
    if (!record) this.refused(text);
    else if (!this.#redelivery.isRepeated(record)) this.buffer.push(record);
  }
}
