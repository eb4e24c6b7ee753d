// A WebSocket that is opened again when that may help, after a random wait that grows.
//
//   closed ─open()─▶ connecting ─▶ open ─▶ waiting ─▶ connecting …
//     ▲                  │          │         │
//     └──────── close(), or a code that another try does not mend
//
// `errors=close` is in every URL: a browser cannot read a refused upgrade, so the server opens the
// socket and closes it with 4000 + the HTTP status and the message as reason (the first 123 bytes).

/** Close codes that a later try may mend; 1006 is a connection that broke or was never made. */
const AGAIN = new Set([1001, 1006, 1011, 1012, 1013, 4429, 4503]);
const WAIT_MS_MAX = 30_000;
const STABLE_MS = 60_000;

const MEANINGS = {
  1000: "closed normally",
  1001: "the server is going away",
  1006: "the connection broke, or could not be made",
  1008: "closed by the server's policy",
  1009: "a message was too big",
  1011: "a fault of the server",
  1012: "the server restarts",
  1013: "the server asks to try again later",
};

/** A close in words: the code, and the reason or what the code means. */
export function closeInWords({ code, reason }) {
  const status = code >= 4400 && code < 4600 ? ` (HTTP ${code - 4000})` : "";
  // The protocol cuts a reason at 123 bytes, and so perhaps within a character of four.
  const cut = new TextEncoder().encode(reason).length >= 120 ? "…" : "";
  return `${code}${status}: ${reason || MEANINGS[code] || "no reason was given"}${cut}`;
}

/** A server that restarts says when each client is to come back, so that not all do at once. */
function askedFor(reason) {
  const [, wait] = /reconnect in (\d+) ms/.exec(reason) ?? [];
  return wait && Math.min(WAIT_MS_MAX, Number(wait));
}

export class Connection {
  #socket = null;
  #timer = 0;
  #failures = 0;
  #openedAt = 0;

  /** One of closed, connecting, open, waiting. */
  state = "closed";
  /** The last close, {code, reason}, that was not asked for. */
  closed = null;
  /** When the next try is, by Date.now(). */
  retryAt = 0;

  /**
   * `url()` and `protocols()` are asked at each try; `received(text)` has a frame; `changed()` is
   * called after each change of the fields above.
   */
  constructor({ url, protocols, received, changed }) {
    Object.assign(this, { url, protocols, received, changed });
  }

  open() {
    if (this.#socket) return;
    this.#failures = 0;
    this.#connect();
  }

  /** Tries now what waits. */
  retry() {
    if (this.state === "waiting") this.#connect();
  }

  /** Whether the text was taken. */
  send(text) {
    if (this.state !== "open") return false;
    this.#socket.send(text);
    return true;
  }

  /** How much was sent that the network has not taken. */
  get buffered() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** Resolves when the socket is closed, or after 3 seconds without an answer to that. */
  close() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    this.closed = null;
    this.#become("closed");
    if (!socket || socket.readyState === WebSocket.CLOSED) return Promise.resolve();
    return new Promise((resolve) => {
      socket.onopen = socket.onmessage = null;
      socket.onclose = resolve;
      setTimeout(resolve, 3000);
      socket.close(1000);
    });
  }

  #connect() {
    clearTimeout(this.#timer);
    let socket;
    try {
      socket = new WebSocket(this.url(), this.protocols());
    } catch (error) {
      this.#fail({ code: 1006, reason: error.message }, false);
      return;
    }
    this.#socket = socket;
    socket.onopen = () => {
      this.#openedAt = Date.now();
      this.#become("open");
    };
    socket.onmessage = ({ data }) => this.received(data);
    socket.onclose = (event) => {
      if (Date.now() - this.#openedAt > STABLE_MS) this.#failures = 0;
      this.#fail(event, AGAIN.has(event.code));
    };
    this.#become("connecting");
  }

  #fail({ code, reason }, again) {
    this.#socket = null;
    this.closed = { code, reason };
    if (!again) return this.#become("closed");
    this.#failures++;
    const growing = Math.min(WAIT_MS_MAX, 500 * 2 ** this.#failures);
    const wait = askedFor(reason) ?? (0.5 + Math.random() / 2) * growing;
    this.retryAt = Date.now() + wait;
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#become("waiting");
  }

  #become(state) {
    this.state = state;
    this.changed();
  }
}
