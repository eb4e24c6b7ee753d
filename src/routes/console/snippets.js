// Commands and programs that run as they are and do what the page does, for its parameters.
//
// Credentials are never in them: where the page has some, a snippet takes them from the environment
// and says from which variables.

import { credentialKinds } from "./credentials.js";

export const TOOLS = ["wscat", "JavaScript", "Python", "websocat"];

/** `consume` or `produce` by a tool; `record` is the JSON of the record to produce. */
export function snippet(tool, endpoint, url, record) {
  const make = { wscat, JavaScript: javascript, Python: python, websocat }[tool];
  // A frame is a line to most tools; within strings JSON has no line ends.
  return `${make(endpoint, url, record?.replace(/\s*[\r\n]\s*/g, " "))}\n`;
}

/** Quoted for a POSIX shell. */
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function wscat(endpoint, url, record) {
  const flags = shellHeaders().map((header) => ` -H "${header}"`).join("");
  if (endpoint === "consume") return `wscat${flags} -c ${quote(url)}`;
  return `wscat${flags} -c ${quote(url)} -w 1 \\\n  -x ${quote(record)}`;
}

function websocat(endpoint, url, record) {
  const flags = shellHeaders().map((header) => ` -H "${header}"`).join("");
  if (endpoint === "consume") return `websocat${flags} ${quote(url)}`;
  return `printf '%s\\n' ${quote(record)} |\n  websocat${flags} ${quote(url)}`;
}

/** For double quotes in a shell. */
function shellHeaders() {
  const kinds = credentialKinds();
  const headers = [];
  if (kinds.basic) headers.push("Authorization: Basic $(printf %s \"$USER_PASSWORD\" | base64 -w0)");
  if (kinds.bearer) headers.push("Authorization: Bearer $TOKEN");
  if (kinds.kafka) headers.push("X-Kafka-Auth: $(printf %s \"$KAFKA_USER_PASSWORD\" | base64 -w0)");
  return headers;
}

function javascript(endpoint, url, record) {
  const kinds = credentialKinds();
  const offered = [];
  if (kinds.basic) offered.push("`basic.${base64url(USER_PASSWORD)}`");
  if (kinds.bearer) offered.push("`bearer.${TOKEN}`");
  if (kinds.kafka) offered.push("`kafka-auth.${base64url(KAFKA_USER_PASSWORD)}`");
  const lines = ["// In a page's module, or with Node 22 or newer: node snippet.mjs"];
  if (offered.length > 0) {
    const names = variables().join(", ");
    lines.push(`const { ${names} } = globalThis.process?.env ?? {}; // in a page: ask for them`);
    if (kinds.basic || kinds.kafka) {
      lines.push(
        "const base64url = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)))",
        "  .replaceAll(\"+\", \"-\").replaceAll(\"/\", \"_\").replace(/=+$/, \"\");",
      );
    }
    offered.push("\"kafka-websocket-proxy\"");
  }
  const protocols = offered.length > 0 ? `, [${offered.join(", ")}]` : "";
  // Not 4xxx without it: a page cannot read why it was refused.
  const closing = `${url}${url.includes("?") ? "&" : "?"}errors=close`;
  lines.push(`const socket = new WebSocket(${JSON.stringify(closing)}${protocols});`);
  if (endpoint === "produce") {
    // As text where an object would change it: integers beyond 2^53.
    const exact = JSON.stringify(JSON.parse(record)) === record;
    lines.push(
      `const record = ${exact ? record : JSON.stringify(record)};`,
      `socket.onopen = () => socket.send(${exact ? "JSON.stringify(record)" : "record"});`,
    );
  }
  lines.push(
    "socket.onmessage = ({ data }) => {",
    "  console.log(data);",
    ...(endpoint === "produce" ? ["  socket.close();"] : []),
    "};",
    "socket.onclose = ({ code, reason }) => console.log(\"closed\", code, reason);",
  );
  return lines.join("\n");
}

function python(endpoint, url, record) {
  const kinds = credentialKinds();
  const lines = ["# pip install websockets; python3 snippet.py"];
  const headers = [];
  if (kinds.basic) headers.push("\"Authorization\": \"Basic \" + base64(\"USER_PASSWORD\")");
  if (kinds.bearer) headers.push("\"Authorization\": \"Bearer \" + os.environ[\"TOKEN\"]");
  if (kinds.kafka) headers.push("\"X-Kafka-Auth\": base64(\"KAFKA_USER_PASSWORD\")");
  if (kinds.basic || kinds.kafka) lines.push("import os", "from base64 import b64encode");
  else if (kinds.bearer) lines.push("import os");
  lines.push("from websockets.sync.client import connect", "");
  if (kinds.basic || kinds.kafka) {
    lines.push("", "def base64(name):", "    return b64encode(os.environ[name].encode()).decode()", "", "");
  }
  const more = headers.length > 0 ? `, additional_headers={${headers.join(", ")}}` : "";
  lines.push(`with connect(${JSON.stringify(url)}${more}) as socket:`);
  if (endpoint === "consume") lines.push("    for frame in socket:", "        print(frame, flush=True)");
  else lines.push(`    socket.send(${pythonString(record)})`, "    print(socket.recv())");
  return lines.join("\n");
}

/** JSON's escapes are Python's, but for pairs of surrogates, which JSON.stringify leaves as they are. */
const pythonString = (text) => JSON.stringify(text);

/** The environment variables that the snippets need, as NAME. */
export function variables() {
  const kinds = credentialKinds();
  const names = [];
  if (kinds.basic) names.push("USER_PASSWORD");
  if (kinds.bearer) names.push("TOKEN");
  if (kinds.kafka) names.push("KAFKA_USER_PASSWORD");
  return names;
}
