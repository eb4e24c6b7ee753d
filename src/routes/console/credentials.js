// Credentials of this tab: in memory only, never in storage, in the URL or in a snippet.
//
// A page cannot set headers on a WebSocket, so they are offered as sub-protocols beside
// `kafka-websocket-proxy`, which the server picks; HTTP requests have them as headers.

import { toBase64 } from "./formats.js";

const held = { proxy: "none", user: "", password: "", token: "", kafkaUser: "", kafkaPassword: "" };

/** Takes what the dialog's form says. */
export function setCredentials(form) {
  for (const name of Object.keys(held)) held[name] = form.elements[name].value;
  held.token = held.token.trim();
}

/** For people: which there are. */
export function credentialsInWords() {
  const parts = [];
  if (held.proxy === "basic") parts.push(`basic ${held.user}`);
  if (held.proxy === "bearer") parts.push("bearer token");
  if (held.kafkaUser) parts.push(`Kafka ${held.kafkaUser}`);
  return parts.join(", ");
}

/** Which headers there are, without what is secret in them: for snippets. */
export function credentialKinds() {
  return {
    basic: held.proxy === "basic",
    bearer: held.proxy === "bearer",
    kafka: held.kafkaUser !== "",
  };
}

export function subProtocols() {
  const offered = [];
  if (held.proxy === "basic") offered.push(`basic.${urlSafe(pair(held.user, held.password))}`);
  if (held.proxy === "bearer") offered.push(`bearer.${held.token}`);
  if (held.kafkaUser) offered.push(`kafka-auth.${urlSafe(pair(held.kafkaUser, held.kafkaPassword))}`);
  return offered.length > 0 ? [...offered, "kafka-websocket-proxy"] : [];
}

/** GET of one of the server's paths, with the browser's own log-in where there is none here. */
export function get(path, options = {}) {
  const headers = {};
  if (held.proxy === "basic") headers.Authorization = `Basic ${pair(held.user, held.password)}`;
  if (held.proxy === "bearer") headers.Authorization = `Bearer ${held.token}`;
  if (held.kafkaUser) headers["X-Kafka-Auth"] = pair(held.kafkaUser, held.kafkaPassword);
  const credentials = headers.Authorization ? "omit" : "same-origin";
  return fetch(new URL(path, document.baseURI), { headers, credentials, cache: "no-store", ...options });
}

const pair = (user, password) => toBase64(new TextEncoder().encode(`${user}:${password}`));

const urlSafe = (base64) => base64.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
