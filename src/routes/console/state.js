// What the server says about itself: /ready with its reasons, the brokers of /kafka/cluster/info, and
// the open sockets of /metrics.
//
// /ready is asked for every 5 seconds while the page is in sight; the other two only while their panel
// is. One request of a kind is under way at a time.

import { get } from "./credentials.js";

const INTERVAL_MS = 5000;

export class ServerState {
  #asking = false;
  /** Whether the panel with brokers and sockets is in sight. */
  detailed = false;
  /** true, false with `reasons`, or undefined while nothing answered. */
  ready = undefined;
  reasons = [];
  brokers = null;
  brokersError = "";
  sockets = null;
  socketsError = "";

  constructor(changed) {
    this.changed = changed;
    setInterval(() => this.ask(), INTERVAL_MS);
    document.addEventListener("visibilitychange", () => this.ask());
    this.ask();
  }

  async ask() {
    if (this.#asking || document.hidden) return;
    this.#asking = true;
    try {
      await Promise.all([
        this.#askReady(),
        ...(this.detailed ? [this.#askBrokers(), this.#askSockets()] : []),
      ]);
    } finally {
      this.#asking = false;
      this.changed();
    }
  }

  async #askReady() {
    try {
      const answer = await get("ready", timeLimit());
      const body = await answer.json().catch(() => ({}));
      this.ready = answer.ok;
      this.reasons = answer.ok ? [] : reasonsOf(body, answer.status);
    } catch {
      this.ready = undefined;
      this.reasons = ["the server does not answer"];
    }
  }

  async #askBrokers() {
    try {
      const answer = await get("kafka/cluster/info", timeLimit());
      const body = await answer.json();
      this.brokers = answer.ok ? body : null;
      this.brokersError = answer.ok ? "" : body.message;
    } catch {
      this.brokers = null;
      this.brokersError = "the server does not answer";
    }
  }

  async #askSockets() {
    try {
      const answer = await get("metrics", timeLimit());
      const text = await answer.text();
      const gauge = (endpoint) =>
        Number(text.match(new RegExp(`^wsproxy_sockets\\{endpoint="${endpoint}"\\} (\\d+)`, "m"))?.[1]);
      this.sockets = answer.ok ? { in: gauge("in"), out: gauge("out") } : null;
      this.socketsError = answer.ok ? "" : `HTTP ${answer.status}`;
    } catch {
      this.sockets = null;
      this.socketsError = "the server does not answer";
    }
  }
}

/** Draws the panel, and the line in the page's head. */
export function showServer({ ready, reasons, brokers, brokersError, sockets, socketsError }) {
  const unready = ready === false ? `not ready: ${reasons.join("; ")}` : reasons[0] ?? "asking …";
  setText(at("server-ready"), ready ? "ready" : unready);
  at("server-ready").dataset.ready = ready ?? "unknown";
  at("server-reasons").replaceChildren(...(ready ? ["ready"] : reasons).map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
  setText(at("sockets"), sockets ? `${sockets.in} producing, ${sockets.out} consuming` : socketsError);
  const table = at("brokers");
  table.replaceChildren();
  if (!brokers) {
    table.insertRow().insertCell().textContent = brokersError;
    return;
  }
  const racks = brokers.some(({ rack }) => rack);
  const head = table.createTHead().insertRow();
  for (const name of ["id", "address", ...(racks ? ["rack"] : [])]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const { id, host, port, rack } of brokers) {
    const row = body.insertRow();
    const cells = [id, `${host}:${port}`, ...(racks ? [rack ?? ""] : [])];
    for (const text of cells) row.insertCell().textContent = text;
  }
}

const at = (id) => document.getElementById(id);

/** Without a change where there is none, so that nothing is read out twice. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const timeLimit = () => ({ signal: AbortSignal.timeout(10_000) });

function reasonsOf(body, status) {
  if (Array.isArray(body.reasons)) return body.reasons.map(String);
  return [body.message ?? `HTTP ${status}`];
}
