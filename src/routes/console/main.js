// The console: puts the parts of the page together.
//
//   parameters.js  the form ⇄ the URL's fragment ⇄ the sockets' URLs
//   consumer.js    connection.js → records.js, bounded    →  topic_view.js, record_details.js
//   produce_form.js  another connection.js                 formats.js and json_text.js present them
//   connect_panel.js with snippets.js, state.js, credentials.js, panels.js, copy.js
//
// State is the consumer's and the form's; this file draws it. Counts are drawn four times a second at
// most; a screen reader hears of changes of the socket, errors and answers, not of each record.

import { listenToConnect, showConnect } from "./connect_panel.js";
import { closeInWords } from "./connection.js";
import { Consumer } from "./consumer.js";
import { credentialsInWords, get, setCredentials } from "./credentials.js";
import { digits, FORMATS } from "./formats.js";
import { members, unquote } from "./json_text.js";
import { completeTopics, listenToKeys, Tabs } from "./panels.js";
import { fromFragment, toFragment, topicsOf } from "./parameters.js";
import { ProduceForm } from "./produce_form.js";
import { RECORDS_MAX } from "./records.js";
import { showRecord } from "./record_details.js";
import { ServerState, showServer } from "./state.js";
import { TopicView } from "./topic_view.js";

const at = (id) => document.getElementById(id);
const form = at("read-form");
const wide = matchMedia("(min-width: 60rem)");
const say = (text) => (at("announcement").textContent = text);

// --- The parts -----------------------------------------------------------------------------

const consumer = new Consumer({
  changed: socketChanged,
  arrived: () => {
    view.changed();
    drawSoon();
  },
  refused: (text) => {
    const { error } = members(text);
    const { code, message } = members(error ?? "{}");
    notice(message ? `${unquote(code)}: ${unquote(message)}` : text);
  },
});

const view = new TopicView(at("records"), consumer.buffer, {
  selected: (record) => {
    drawRecord(record);
    tabs.show("record");
  },
  // Below the list, where there is one column.
  opened: () => {
    if (!wide.matches) at("tab-record").scrollIntoView({ block: "start" });
  },
  followed: () => at("follow").setAttribute("aria-pressed", view.follow),
});

for (const select of [at("val-type"), at("key-type"), at("produce-key-type"), at("produce-val-type")]) {
  for (const format of FORMATS) select.add(new Option(format));
}
listenToConnect(drawConnect);

const produceForm = new ProduceForm(at("produce-form"), at("answers"), at("answers-summary"), say);

const state = new ServerState(() => showServer(state));

const tabs = new Tabs(document.querySelector("[role=tablist]"), (name) => {
  state.detailed = name === "server";
  if (state.detailed) state.ask();
  if (name === "connect") drawConnect();
});

// --- Reading -------------------------------------------------------------------------------

function parameters() {
  const { topic, valType, keyType, offsetResetStrategy, groupId, isolationLevel, autoCommit } = form.elements;
  return {
    topic: topic.value,
    valType: valType.value,
    keyType: keyType.value,
    offsetResetStrategy: offsetResetStrategy.value,
    isolationLevel: isolationLevel.value,
    groupId: groupId.value.trim(),
    autoCommit: String(autoCommit.checked),
  };
}

function share() {
  toFragment({
    ...parameters(),
    order: view.newestFirst ? "newest" : "oldest",
    search: at("search").value,
  });
  drawConnect();
}

function read() {
  const wanted = parameters();
  if (topicsOf(wanted.topic).length === 0) return;
  notice("");
  view.severalTopics = topicsOf(wanted.topic).length > 1;
  setText(at("place-column"), view.severalTopics ? "topic part@offset" : "part@offset");
  present();
  pause(false);
  const produceTopic = at("produce-topic");
  if (produceTopic.value === "" || produceTopic.value === read.topic) {
    [produceTopic.value] = topicsOf(wanted.topic);
  }
  [read.topic] = topicsOf(wanted.topic);
  consumer.read(wanted);
  view.clear();
  share();
  draw();
}

/** Another type: what is shown is presented in it, what comes is asked for in it. */
function typesChanged() {
  present();
  share();
  if (!consumer.parameters) return;
  const { valType, keyType } = parameters();
  consumer.reopen({ ...consumer.parameters, valType, keyType });
}

function present() {
  const { valType, keyType } = parameters();
  view.valType = valType;
  view.keyType = keyType;
  view.reset();
  if (view.selection) drawRecord(view.selection);
}

function pause(paused) {
  consumer.pause(paused);
  at("pause").setAttribute("aria-pressed", paused);
  drawSoon();
}

function search(needle) {
  consumer.search(needle);
  view.mark(needle);
}

function setOrder(newestFirst) {
  view.newestFirst = newestFirst;
  at("order").textContent = newestFirst ? "Newest first" : "Newest last";
  view.reset();
}

function setFollow(follow) {
  view.setFollow(follow);
  at("follow").setAttribute("aria-pressed", follow);
}

function commitAll() {
  if (consumer.connection.state !== "open") return notice("Nothing is committed: the socket is not open.");
  const count = consumer.commitAll();
  say(`Committed what was read of ${count} partitions.`);
  flash(at("commit"), count === 0 ? "Nothing new" : "Sent");
}

function commitTo(record) {
  if (!consumer.commit(record)) return notice("Nothing is committed: the socket is not open.");
  say(`Committed up to ${record.topic}-${record.partition} @ ${record.offset}.`);
  flash(at("commit-record"), "Sent");
}

/** Says on a button for a moment that it did something. */
function flash(button, text) {
  const { textContent } = button;
  if (textContent === text) return;
  button.textContent = text;
  setTimeout(() => (button.textContent = textContent), 1200);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  read();
});
at("stop").addEventListener("click", () => consumer.stop());
at("retry").addEventListener("click", () => consumer.connection.retry());
addEventListener("online", () => consumer.connection.retry());
for (const id of ["val-type", "key-type"]) at(id).addEventListener("change", typesChanged);
form.addEventListener("change", share);
at("search").addEventListener("input", () => {
  search(at("search").value);
  share();
});
at("pause").addEventListener("click", () => pause(!consumer.paused));
at("follow").addEventListener("click", () => setFollow(!view.follow));
at("order").addEventListener("click", () => {
  setOrder(!view.newestFirst);
  share();
});
at("commit").addEventListener("click", commitAll);
at("clear").addEventListener("click", () => {
  consumer.clear();
  view.clear();
  draw();
});

// --- Drawing -------------------------------------------------------------------------------

let drawTimer = 0;
let suggested = false;

function drawSoon() {
  drawTimer ||= setTimeout(draw, 250);
}

function draw() {
  clearTimeout(drawTimer);
  drawTimer = 0;
  drawState();
  drawCounts();
}

// The rate falls and the wait runs out without anything that comes.
setInterval(() => consumer.connection.state !== "closed" && draw(), 1000);

function socketChanged() {
  const { state, closed } = consumer.connection;
  if (state === "open") notice("");
  if (closed && state === "closed") notice(`Closed with ${closeInWords(closed)}`);
  draw();
  say(at("read-state").textContent);
}

function drawState() {
  const { state, closed, retryAt } = consumer.connection;
  const topic = consumer.parameters && topicsOf(consumer.parameters.topic).join(", ");
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  const text = {
    closed: topic ? `Not reading ${topic} any more.` : "Not reading.",
    connecting: `Connecting to read ${topic} …`,
    open: consumer.paused
      ? `Paused. Of what ${topic} brings, the newest ${digits(RECORDS_MAX)} wait.`
      : `Reading ${topic}`,
    waiting: `Closed with ${closed && closeInWords(closed)}. Again in ${seconds} s.`,
  }[state];
  setText(at("read-state"), text);
  document.title = state === "closed" ? "kafka-websocket-proxy" : `${topic} – kafka-websocket-proxy`;
  at("read-state").dataset.state = state;
  at("retry").hidden = state !== "waiting";
  at("stop").hidden = state === "closed";
  const autoCommit = consumer.parameters?.autoCommit === "true";
  at("commit").disabled = autoCommit || !consumer.parameters;
  at("commit").title = autoCommit ? "The server commits what it hands over: autoCommit" : "";
}

function drawCounts() {
  const { buffer } = consumer;
  const counts = {
    kept: buffer.size,
    received: buffer.received,
    fellOff: buffer.fellOff,
    leftOut: consumer.leftOut,
    waiting: consumer.paused ? consumer.waiting : 0,
    matching: buffer.viewSize,
    repeated: consumer.repeated,
  };
  Object.assign(at("counts").dataset, counts);
  const words = [];
  const add = (n, text) => n > 0 && words.push(`${digits(n)} ${text}`);
  if (at("search").value !== "") words.push(`${digits(counts.matching)} match`);
  if (counts.fellOff > 0) {
    words.push(`the newest ${digits(counts.kept)} of ${digits(counts.received)} records`);
  } else words.push(`${digits(counts.kept)} record${counts.kept === 1 ? "" : "s"}`);
  if (consumer.connection.state === "open") words.push(`${digits(Math.round(consumer.rate()))}/s`);
  add(counts.waiting, "wait");
  add(counts.leftOut, `left out, when more than ${digits(RECORDS_MAX)} waited`);
  add(counts.repeated, "came again, not shown twice");
  setText(at("counts"), words.join(" · "));
  drawEmpty(counts);
}

function drawEmpty({ kept, matching }) {
  const { state } = consumer.connection;
  let text = "";
  if (kept > 0 && matching === 0) text = "None of the records that are kept matches.";
  else if (kept === 0 && state === "open") {
    text = consumer.parameters.offsetResetStrategy === "latest"
      ? "Nothing was written since this opened. Produce a record, or start at the beginning."
      : "There are no records yet.";
  } else if (kept === 0 && !consumer.parameters) {
    text = suggested
      ? "There are no topics yet. Read t, then produce to it: with --dev topics are created on first use."
      : "Name a topic and read it; or produce a record.";
  }
  setText(at("empty"), text);
}

function drawRecord(record) {
  const { keyType, valType } = parameters();
  const commit = consumer.parameters?.autoCommit === "false" ? commitTo : undefined;
  showRecord(at("panel-record"), record, { keyType, valType, commit, back });
}

/** To the list, which is above where there is one column. */
function back() {
  at("stream").scrollIntoView({ block: "start" });
  at("records").focus();
}

function notice(text) {
  setText(at("notice"), text);
}

/** Without a change where there is none, so that nothing is read out twice. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function drawConnect() {
  showConnect({
    parameters: parameters(),
    running: consumer.parameters && consumer.url,
    produceForm,
  });
}

// --- Credentials, keys, the first view -------------------------------------------------------

const credentialsDialog = at("credentials-dialog");
const credentialsForm = at("credentials-form");

function drawCredentials() {
  const kind = credentialsForm.elements.proxy.value;
  for (const part of credentialsForm.querySelectorAll("[data-for]")) part.hidden = part.dataset.for !== kind;
}
credentialsForm.elements.proxy.addEventListener("change", drawCredentials);
drawCredentials();
at("credentials").addEventListener("click", () => credentialsDialog.showModal());
credentialsForm.addEventListener("submit", (event) => {
  if (event.submitter?.value !== "use") return;
  setCredentials(credentialsForm);
  const words = credentialsInWords();
  at("credentials").textContent = words ? `Credentials: ${words}` : "Credentials";
  produceForm.close();
  const { state: socketState, closed } = consumer.connection;
  if (socketState !== "closed") consumer.reopen(consumer.parameters);
  else if (closed) read(); // refused without them, perhaps
  state.ask();
  drawConnect();
});

at("skip").addEventListener("click", back);

const shortcutsDialog = at("shortcuts-dialog");
at("shortcuts").addEventListener("click", () => shortcutsDialog.showModal());

listenToKeys([
  ["/", "search", () => at("search").focus()],
  ["p", "pause, or go on", () => pause(!consumer.paused)],
  ["f", "follow the newest", () => setFollow(!view.follow)],
  ["o", "newest first or last", () => at("order").click()],
  ["j", "next record", () => view.move(1)],
  ["k", "previous record", () => view.move(-1)],
  ["c", "copy the record as JSON", () => at("copy-record")?.click()],
  ["m", "commit what was read", () => at("commit").click()],
  ["w", "produce", () => {
    tabs.show("produce");
    at("produce-value").focus();
  }],
  ["?", "these keys", () => shortcutsDialog.showModal()],
  ["Ctrl+Enter", "produce, from a field of its form"],
  ["↑ ↓ Home End", "choose a record, in the list"],
], at("shortcut-list"), at("single-keys"));

completeTopics([at("topic"), at("produce-topic")], at("topic-names"), get);

function begin() {
  const shared = fromFragment();
  const { elements } = form;
  for (const name of ["topic", "groupId"]) elements[name].value = shared[name];
  for (const name of ["valType", "keyType", "offsetResetStrategy", "isolationLevel"]) {
    elements[name].value = shared[name];
    if (elements[name].selectedIndex < 0) elements[name].selectedIndex = 0;
  }
  elements.autoCommit.checked = shared.autoCommit === "true";
  at("more").open = shared.groupId !== "" || shared.autoCommit === "true";
  at("search").value = shared.search;
  search(shared.search);
  setOrder(shared.order !== "oldest");
  present();
  if (shared.topic && !shared.groupId) read();
  else draw();
  drawConnect();
}

/** Where there is no topic at all, the one that --dev's first commands name. */
async function suggest() {
  const answer = await get("console/topics?limit=1");
  if (!answer.ok || (await answer.json()).topics.length > 0 || at("topic").value !== "") return;
  at("topic").value = read.topic = "t";
  at("produce-topic").value ||= "t";
  suggested = true;
  draw();
}

addEventListener("hashchange", begin);
begin();
if (at("topic").value === "") suggest().catch(() => {});
